//! The same promises where nodes are virtual machines, which want qemu besides.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use super::{Bench, kill, process, text, wait_for};

const START: &str = "start --backend vm --bin-dir bin --nodes 1 --routers 1 --testers 0";

/// None without qemu.
fn bench() -> Option<Bench> {
    let bench = Bench::new()?;
    fs::create_dir(bench.path("bin")).unwrap();
    // It is asked whether instructions make sense.
    fs::copy("/bin/true", bench.path("bin/evil")).unwrap();
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("skipped: machines need qemu-system-x86_64 (make deps)");
        return None;
    }
    Some(bench)
}

impl Bench {
    /// The process of a machine of the only cluster.
    fn qemu(&self, name: &str) -> u32 {
        let state = self.state().display().to_string();
        let found = process(|line| {
            line.starts_with(&format!("qemu-system-x86_64 -name {name} ")) && line.contains(&state)
        });
        found.expect("the process of the machine")
    }

    fn is_running(&self) -> bool {
        let status: Value = serde_json::from_str(&self.well("status --json")).unwrap();
        status.as_array().unwrap().iter().any(|cluster| cluster["state"] == "running")
    }

    /// What is told when a command cannot reach its machine.
    fn lost(&self, line: &str) -> String {
        let (code, error) = self.ill(line);
        assert_eq!(code, 255, "{error}");
        error
    }
}

#[test]
#[ignore = "takes half a minute: make test-vm"]
fn machines_come_and_go() {
    let Some(bench) = bench() else { return };
    bench.well(START);
    assert_eq!(bench.well("scale out 3"), "cluster default has 3 nodes\n");
    assert_eq!(bench.names_of_nodes("default"), ["vm-001", "vm-003", "vm-201"]);
    let (code, error) = bench.ill("scale out 3");
    assert_eq!((code, &*error), (1, "ovl: add vm-003: it is there already\n"));
    let reach = || {
        bench.well("run 3 -- ping -c1 -W9 192.168.1.1");
        bench.well("run 1 -- ping -c1 -W9 1000::1:192.168.1.3");
    };
    reach();

    // Of the kernel in the machine, or a process where that has none.
    let said = bench.well("impair --by kernel 3 eth1 delay 50ms");
    assert_eq!(said, "eth1 of vm-003 is impaired by the kernel\n");
    let said = bench.well("impair 3 eth1");
    assert_eq!(said.matches("qdisc netem").count(), 2, "{said}");

    bench.well("run 3 touch /root/note");
    bench.well("power cycle 3");
    reach();
    assert!(!bench.ovl("run 3 test -e /root/note").status.success());
    // A link is as bad as before.
    let said = bench.well("impair 3 eth1");
    assert_eq!(said.matches("qdisc netem").count(), 2, "{said}");
    assert_eq!(bench.well("impair 3 eth1 off"), "eth1 of vm-003 is as it should be again\n");
    let queues = text(&bench.script("3", "tc qdisc; ip link").stdout);
    assert!(!queues.contains("netem") && !queues.contains("ifb"), "{queues}");

    bench.well("power off 3");
    let error = bench.lost("run 3 true");
    assert!(error.starts_with("ovl: run true: vm-003 has ended; "), "{error}");
    assert!(!bench.ovl("run 1 -- ping -c1 -W1 192.168.1.3").status.success());
    bench.well("power on 3");
    reach();
    let (code, error) = bench.ill("power on 3");
    assert_eq!((code, &*error), (1, "ovl: start vm-003: it runs already\n"));

    assert_eq!(bench.well("scale in 3"), "cluster default has 2 nodes\n");
    assert_eq!(bench.names_of_nodes("default"), ["vm-001", "vm-201"]);
    let state = bench.state().display().to_string();
    let left = process(|line| line.contains("vm-003") && line.contains(&state));
    assert_eq!(left, None);
    bench.well("run 1 -- ping -c1 -W9 192.168.1.201");
    assert_eq!(bench.well("stop"), "stopped default\n");
    bench.assert_nothing_left();
}

#[test]
fn a_machine_that_hangs_or_dies_is_told() {
    let Some(bench) = bench() else { return };
    bench.well(START);
    let tell = |node: &str| {
        assert!(bench.script(node, "echo my last words >/dev/console").status.success());
        bench.qemu(node)
    };
    let qemu = tell("vm-001");
    kill("STOP", qemu);
    let error = bench.lost("run 1 true");
    kill("CONT", qemu);
    let expected = "ovl: run true: vm-001 does not answer; the end of its console:\n";
    assert!(error.starts_with(expected) && error.contains("my last words"), "{error}");
    bench.well("run 1 true");

    // Another one: a kernel that stood still for so long may have more to say.
    kill("KILL", tell("vm-201"));
    wait_for("the machine to be gone", || bench.well("status").contains("ENDED"));
    let error = bench.lost("run 201 true");
    let expected = "ovl: run true: vm-201 has ended; the end of its console:\n";
    assert!(error.starts_with(expected) && error.contains("my last words"), "{error}");
    bench.well("power on 201");
    bench.well("run 201 true");
}

#[test]
#[ignore = "takes half a minute: make test-vm"]
fn clusters_of_machines_run_side_by_side() {
    let Some(bench) = bench() else { return };
    for name in ["a", "b"] {
        bench.well(&format!("{START} --cluster {name} --set WHO={name}"));
    }
    for name in ["a", "b"] {
        bench.well(&format!("run --cluster {name} 1 -- ping -c1 -W9 192.168.1.201"));
        let who = format!("run --cluster {name} 1 -- sh -c");
        let who = bench.command(&who).arg(". /etc/profile; echo $WHO").output().unwrap();
        assert_eq!(text(&who.stdout), format!("{name}\n"));
    }
    bench.well("stop --cluster a");
    bench.well("run --cluster b 1 -- ping -c1 -W9 192.168.1.201");

    // What is below a cluster's first process ends with it.
    let status: Value = serde_json::from_str(&bench.well("status --json --cluster b")).unwrap();
    let holder = status[0]["holder"].as_u64().unwrap();
    kill("KILL", u32::try_from(holder).unwrap());
    bench.wait_for_end();
    bench.well("stop --all");
    bench.assert_nothing_left();
}

#[test]
#[ignore = "takes half a minute: make test-vm"]
fn who_is_killed_leaves_no_machines() {
    let Some(bench) = bench() else { return };
    // The first start on a machine takes longer: it makes what all have in common.
    bench.well(START);
    bench.well("stop");
    let whole = Instant::now();
    bench.well(START);
    let whole = whole.elapsed();
    bench.well("stop");
    for part in 1..4 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ovl"))
            .args(START.split(' '))
            .env("OVL_STATE_DIR", bench.state())
            .current_dir(bench.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At some moment.
        thread::sleep(whole * part / 4);
        kill("KILL", child.id());
        child.wait().unwrap();
        // Nobody needs to stop anything, unless the cluster was ready just then.
        if bench.is_running() {
            bench.well("stop --all");
        }
        bench.wait_for_end();
        bench.assert_nothing_left();
    }
}

#[test]
fn a_kernel_that_does_not_fit_is_told() {
    let Some(bench) = bench() else { return };
    let cache = bench.path("cache");
    let modules = bench.path("6.0.0-x");
    fs::create_dir_all(&modules).unwrap();
    let start = |kernel: &str| {
        let line = format!("{START} --kernel {kernel} --modules 6.0.0-x");
        let output = bench.command(&line).env("XDG_CACHE_HOME", &cache).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        text(&output.stderr)
    };
    bench.write("text", "no kernel\n");
    let error = start("text");
    let expected = format!("take a kernel: {} is no Linux kernel\n", bench.path("text").display());
    assert!(error.ends_with(&expected), "{error}");
    // Where its text is, as the boot protocol has it.
    let mut image = vec![0; 0x600];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20e..0x210].copy_from_slice(&0x300_u16.to_le_bytes());
    image[0x500..0x510].copy_from_slice(b"6.0.0-y (a@b) #1");
    fs::write(bench.path("other"), &image).unwrap();
    let error = start("other");
    let expected = format!(
        "{} is version 6.0.0-y, {} are the modules of 6.0.0-x",
        bench.path("other").display(),
        modules.display()
    );
    assert!(error.contains(&expected), "{error}");
    image[0x506] = b'x';
    fs::write(bench.path("fits"), &image).unwrap();
    for file in ["modules.order", "modules.builtin"] {
        bench.write(&format!("6.0.0-x/{file}"), "");
    }
    let error = start("fits");
    let expected = format!(
        "use the modules in {}: machines need virtio_pci, which is not among them\n",
        modules.display()
    );
    assert!(error.contains(&expected), "{error}");
    let left = fs::read_dir(cache.join("markway")).unwrap();
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"]);
    bench.assert_nothing_left();
}
