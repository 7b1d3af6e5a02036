//! Clusters from outside: what `ovl` promises to those who type it. These tests need root; without
//! it they say so and do nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

#[path = "cluster/machines.rs"]
mod machines;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(240);

/// A folder of its own for the state of clusters; all of them end with it.
struct Bench {
    dir: TempDir,
}

impl Bench {
    /// None without root.
    fn new() -> Option<Self> {
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            eprintln!("skipped: clusters need root");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// An overlay with one start-up script.
    fn overlay(&self, name: &str, script: &str) -> PathBuf {
        let path = self.write(&format!("{name}/default/etc/init.d/60{name}.rc"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self.write(&format!("{name}/README.md"), "A test.\n");
        self.path(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command.arg(LIMIT.as_secs().to_string()).arg(env!("CARGO_BIN_EXE_ovl"));
        command.args(line.split(' ')).env("OVL_STATE_DIR", self.state());
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    fn ovl(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// The standard output of a command line that must succeed.
    fn well(&self, line: &str) -> String {
        let output = self.ovl(line);
        assert!(output.status.success(), "ovl {line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code and the standard error of a command line.
    fn ill(&self, line: &str) -> (i32, String) {
        let output = self.ovl(line);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), error)
    }

    fn script(&self, node: &str, script: &str) -> Output {
        self.command(&format!("run {node} -- sh -c")).arg(script).output().unwrap()
    }

    fn names_of_nodes(&self, cluster: &str) -> Vec<String> {
        let status = self.well(&format!("status --json --cluster {cluster}"));
        let status: Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status[0]["state"], "running");
        let nodes = status[0]["nodes"].as_array().unwrap();
        assert!(nodes.iter().all(|node| node["running"] == true), "{nodes:?}");
        nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The clusters end by themselves.
    fn wait_for_end(&self) {
        let state = self.state().display().to_string();
        wait_for("the clusters to end", || process(|line| line.contains(&state)).is_none());
    }

    /// Nothing may be there that has to do with this folder.
    fn assert_nothing_left(&self) {
        let state = self.state();
        let left: Vec<String> = processes()
            .into_iter()
            .map(|(_, line)| line)
            .filter(|line| line.contains(&*state.to_string_lossy()))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*state.to_string_lossy()), "{mounts}");
        let folders = fs::read_dir(&state).map_or(0, Iterator::count);
        assert_eq!(folders, 0, "folders in {}", state.display());
        // The bridges and the devices' ends on them would be called so.
        for device in fs::read_dir("/sys/class/net").unwrap() {
            let name = device.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("net"), "{name}");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let stopped = self.ovl("stop --all");
        if !thread::panicking() {
            assert!(stopped.status.success(), "{stopped:?}");
        }
    }
}

/// The numbers of all processes, and their command lines.
fn processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let process = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some((number, text(&line).replace('\0', " ")))
    };
    entries.filter_map(process).collect()
}

/// The number of a process with such a command line.
fn process(is_it: impl Fn(&str) -> bool) -> Option<u32> {
    processes().into_iter().find(|(_, line)| is_it(line)).map(|(number, _)| number)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "wait for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_cluster_stays_until_it_is_stopped() {
    let Some(bench) = Bench::new() else { return };
    assert_eq!(bench.well("status"), "no cluster is running\n");
    let said = bench.well("start --nodes 2 --routers 1 --testers 1");
    assert!(said.lines().last().unwrap().starts_with("cluster default is up: xnet, 4 nodes"));
    assert_eq!(bench.names_of_nodes("default"), ["vm-001", "vm-002", "vm-201", "vm-221"]);
    for (node, address) in
        [("221", "192.168.1.1"), ("1", "192.168.2.221"), ("vm-221", "1000::1:192.168.1.2")]
    {
        bench.well(&format!("run {node} -- ping -c1 -W2 {address}"));
    }
    let (code, error) = bench.ill("start");
    assert_eq!(code, 1);
    assert!(error.starts_with("ovl: start cluster default: it is running already"), "{error}");
    bench.well("start --restart --nodes 1 --testers 0 --routers 1");
    assert_eq!(bench.names_of_nodes("default"), ["vm-001", "vm-201"]);
    assert_eq!(bench.well("stop"), "stopped default\n");
    bench.assert_nothing_left();
    let (code, error) = bench.ill("stop");
    assert_eq!((code, &*error), (1, "ovl: stop cluster default: it is not running\n"));
}

#[test]
fn a_command_runs_as_if_it_were_here() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --bare --nodes 1 --routers 1");
    let ran = bench.script("1", "hostname; echo oops >&2; exit 7");
    assert_eq!(ran.status.code(), Some(7));
    assert_eq!((&*text(&ran.stdout), &*text(&ran.stderr)), ("vm-001\n", "oops\n"));

    let mut cat = bench.command("run 1 cat");
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = "line\n".repeat(100_000);
    let mut stdin = cat.stdin.take().unwrap();
    let written = thread::spawn({
        let input = input.clone();
        move || stdin.write_all(input.as_bytes())
    });
    let output = cat.wait_with_output().unwrap();
    written.join().unwrap().unwrap();
    assert_eq!(text(&output.stdout), input);

    let killed = bench.script("1", "kill -KILL $$");
    assert_eq!(killed.status.code(), Some(128 + 9));
    let (code, error) = bench.ill("run 1 no-such-program");
    assert_eq!(code, 127);
    assert!(error.starts_with("ovl: run no-such-program: "), "{error}");
    let (code, error) = bench.ill("run 9 true");
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "ovl: find node vm-009: not in this cluster, which has vm-001 vm-201 vm-221\n"
    );
}

#[test]
fn a_signal_reaches_the_command() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --bare --nodes 1 --routers 1");
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
    // Without `timeout`, so that the number is that of ovl.
    let mut child = Command::new(env!("CARGO_BIN_EXE_ovl"))
        .args(["run", "1", "--", "sh", "-c", script])
        .env("OVL_STATE_DIR", bench.state())
        .stdout(fs::File::create(bench.path("said")).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(bench.path("said")).unwrap();
    wait_for("the script to be ready", || said() == "ready\n");
    kill("TERM", child.id());
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert_eq!(said(), "ready\ncaught\n");
}

fn kill(signal: &str, process: u32) {
    let status = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_terminal_is_passed_through() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --bare --nodes 1 --routers 1");
    let line = format!("{} run 1 -- test -t 0", env!("CARGO_BIN_EXE_ovl"));
    let with = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("OVL_STATE_DIR", bench.state()).stdin(Stdio::null());
        command.output().unwrap().status.code()
    };
    assert_eq!(with(&["script", "-qec", &line, "/dev/null"]), Some(0));
    assert_eq!(with(&["sh", "-c", &line]), Some(1));
}

#[test]
fn nodes_have_files_of_their_own() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --bare --nodes 2 --routers 1");
    let script = "for dir in / /etc /usr/lib /var/tmp /tmp /run /dev /dev/shm /root; do
            touch $dir/ovl-was-here; done; rm -r /etc/init.d; mount -t tmpfs x /mnt; sleep 100 >/dev/null 2>&1 &";
    assert!(bench.script("1", script).status.success());
    for dir in ["", "/etc", "/usr/lib", "/var/tmp", "/tmp", "/run", "/dev", "/dev/shm", "/root"] {
        let path = format!("{dir}/ovl-was-here");
        assert!(bench.script("1", &format!("test -e {path}")).status.success(), "{path}");
        assert!(!Path::new(&path).exists(), "{path}");
        assert!(!bench.script("2", &format!("test -e {path}")).status.success(), "{path}");
    }
    assert!(Path::new("/etc/init.d").is_dir());
    // Process 1, and the one that was left in the background.
    let seen = bench.script("1", "ps -A -o comm= | grep -c -e sleep -e ovl");
    assert_eq!(text(&seen.stdout), "2\n");
    let devices = "test -c /dev/null && test -c /dev/ptmx && test -d /dev/shm && ls /proc/self/fd";
    assert!(bench.script("1", devices).status.success());
    let name = Path::new(env!("CARGO_BIN_EXE_ovl")).file_name().unwrap().to_str().unwrap();
    let script = format!("command -v {name}; touch /opt/markway/bin/x 2>&1");
    let ran = bench.script("1", &script);
    assert!(text(&ran.stdout).starts_with(&format!("/opt/markway/bin/{name}\n")));
    assert!(text(&ran.stdout).contains("Read-only"), "{ran:?}");
}

#[test]
fn files_are_copied_both_ways() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --bare --nodes 2 --routers 1");
    let one = bench.write("one", "content\n");
    fs::set_permissions(&one, fs::Permissions::from_mode(0o750)).unwrap();
    bench.write("folder/deep/two", "more\n");

    bench.well("cp one 1:/tmp");
    bench.well("cp one vm-001:/tmp/other");
    bench.well("cp folder 1:/srv/new");
    let listing = bench.script("1", "cd /tmp; stat -c '%n %a' one other; cat /srv/new/deep/two");
    assert_eq!(text(&listing.stdout), "one 750\nother 750\nmore\n");

    assert!(
        bench
            .script("1", "ln -s /etc/hostname /tmp/link; hostname >/etc/hostname")
            .status
            .success()
    );
    // A link of the node leads to the node's file.
    bench.well("cp 1:/tmp/link back");
    assert_eq!(fs::read_to_string(bench.path("back")).unwrap(), "vm-001\n");
    bench.well("cp 1:/srv/new .");
    assert_eq!(fs::read_to_string(bench.path("new/deep/two")).unwrap(), "more\n");

    bench.well("cp 1:/etc/hostname 2:/tmp/from-1");
    assert_eq!(text(&bench.script("2", "cat /tmp/from-1").stdout), "vm-001\n");

    let (code, error) = bench.ill("cp 1:/no/such .");
    assert_eq!(code, 1);
    assert_eq!(error, "ovl: open /no/such on vm-001: ENOENT: No such file or directory\n");
    assert_eq!(bench.ill("cp one no/such/folder").0, 1);
    assert_ne!(bench.ill("cp one 1:/no/such/folder").0, 0);
}

#[test]
fn nodes_come_and_go() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --nodes 1 --routers 1 --testers 1");
    for _ in 0..2 {
        assert_eq!(bench.well("scale out 7 vm-003 202"), "cluster default has 6 nodes\n");
        assert_eq!(
            bench.names_of_nodes("default"),
            ["vm-001", "vm-003", "vm-007", "vm-201", "vm-202", "vm-221"]
        );
        bench.well("run 7 -- ping -c1 -W2 192.168.1.1");
        bench.well("run 221 -- ping -c1 -W2 1000::1:192.168.1.3");
        let (code, error) = bench.ill("scale out 3");
        assert_eq!((code, &*error), (1, "ovl: add vm-003: it is there already\n"));
        assert_eq!(bench.well("scale in 3 7 202"), "cluster default has 3 nodes\n");
    }
    let (code, error) = bench.ill("scale in 3");
    assert_eq!(code, 1);
    assert!(error.starts_with("ovl: find node vm-003: not in this cluster"), "{error}");
    assert_eq!(bench.names_of_nodes("default"), ["vm-001", "vm-201", "vm-221"]);
}

#[test]
fn links_are_known_by_node_and_device() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --nodes 1 --routers 1 --testers 1");
    assert_eq!(bench.well("impair 1 eth1"), "eth1 of vm-001 is as it should be\n");
    assert_eq!(bench.well("impair vm-001 eth1 off"), "eth1 of vm-001 is as it should be already\n");
    let (code, error) = bench.ill("impair 1 eth9 off");
    assert_eq!((code, &*error), (1, "ovl: find device eth9 of vm-001: it has eth0 eth1\n"));
    let (code, error) = bench.ill("impair 9 eth1 off");
    assert_eq!(code, 1);
    assert!(error.starts_with("ovl: find node vm-009: not in this cluster"), "{error}");
}

#[test]
fn a_node_without_power_comes_back_as_new() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --nodes 1 --routers 1 --testers 1");
    bench.well("run 201 touch /root/note");
    bench.well("power off 201");
    let (code, error) = bench.ill("run 201 true");
    assert_eq!(code, 1);
    assert!(error.starts_with("ovl: find node vm-201: it has ended"), "{error}");
    assert!(!bench.ovl("run 221 -- ping -c1 -W1 192.168.1.1").status.success());
    bench.well("power on 201");
    bench.well("run 221 -- ping -c1 -W2 192.168.1.1");
    assert!(!bench.ovl("run 201 test -e /root/note").status.success());
    let (code, error) = bench.ill("power on 201");
    assert_eq!((code, &*error), (1, "ovl: start vm-201: it runs already\n"));
    bench.well("power cycle 201 1");
    bench.well("run 221 -- ping -c1 -W2 192.168.1.1");
    bench.well("stop");
    bench.assert_nothing_left();
}

#[test]
fn options_of_machines_are_for_machines() {
    let Some(bench) = Bench::new() else { return };
    let (code, error) = bench.ill("start --memory 128");
    assert_eq!(code, 1);
    assert_eq!(error, "ovl: --kernel, --modules and --memory are for --backend vm\n");
    bench.well("start --nodes 1");
    let (code, error) = bench.ill("console 1");
    assert_eq!(code, 1);
    assert!(error.contains("it is made of namespaces"), "{error}");
}

#[test]
fn a_node_that_has_ended_is_told() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --nodes 2 --routers 1");
    // Process 1 gets from within what it would handle; SIGKILL only from outside.
    let init = format!("init vm-002 {}", bench.state().display());
    let pid = process(|line| line.contains(&init));
    kill("KILL", pid.expect("process 1 of the node"));
    wait_for("the node to be gone", || bench.well("status").contains("ENDED"));
    let (code, error) = bench.ill("run 2 true");
    assert_eq!(code, 1);
    assert!(error.starts_with("ovl: find node vm-002: it has ended"), "{error}");
    bench.well("scale in 2");
    bench.well("scale out 2");
    bench.well("run 2 -- ping -c1 -W2 192.168.1.1");
}

#[test]
fn clusters_run_side_by_side() {
    let Some(bench) = Bench::new() else { return };
    for name in ["a", "b"] {
        bench.well(&format!("start --cluster {name} --nodes 2 --routers 1 --set WHO={name}"));
    }
    for name in ["a", "b"] {
        bench.well(&format!("run --cluster {name} 1 -- ping -c1 -W2 192.168.1.2"));
        let who = format!("run --cluster {name} 2 -- sh -c");
        let who = bench.command(&who).arg(". /etc/profile; echo $WHO").output().unwrap();
        assert_eq!(text(&who.stdout), format!("{name}\n"));
    }
    bench.well("stop --cluster a");
    bench.well("run --cluster b 1 -- ping -c1 -W2 192.168.1.2");
    assert_eq!(bench.ill("run --cluster a 1 true").0, 1);
    assert_eq!(bench.ill("status --cluster a").0, 1);
    bench.well("start --cluster a --nodes 1 --routers 1");
    assert_eq!(bench.well("stop --all"), "stopped a b\n");
    bench.assert_nothing_left();
    assert_eq!(bench.well("stop --all"), "no cluster is there\n");
}

#[test]
fn of_two_that_start_one_wins() {
    let Some(bench) = Bench::new() else { return };
    for _ in 0..5 {
        let start = |_| {
            let mut command = bench.command("start --nodes 1 --routers 1");
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = (0..3).map(start).collect();
        let outputs: Vec<Output> =
            children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
        let (won, lost): (Vec<_>, Vec<_>) =
            outputs.iter().partition(|output| output.status.success());
        assert_eq!(won.len(), 1, "{outputs:?}");
        for output in lost {
            let error = text(&output.stderr);
            assert!(error.starts_with("ovl: start cluster default: "), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        bench.well("run 1 true");
        bench.well("stop");
    }
}

#[test]
fn a_start_that_is_killed_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let start = |line: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ovl"));
        command.args(line.split(' ')).env("OVL_STATE_DIR", bench.state());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let whole = Instant::now();
    bench.well("start --nodes 4 --routers 2 --testers 1");
    let whole = whole.elapsed();
    bench.well("stop");
    let steps = 40;
    for step in 0..steps {
        let mut child = start("start --nodes 4 --routers 2 --testers 1").spawn().unwrap();
        // From the first moment to a bit after it is ready.
        thread::sleep(whole * step / (steps - 5));
        kill("KILL", child.id());
        child.wait().unwrap();
        bench.well("stop --all");
        bench.assert_nothing_left();
    }
}

#[test]
fn an_interrupted_start_ends_by_itself() {
    let Some(bench) = Bench::new() else { return };
    // No other process of the machine is called so.
    let sleep = format!("sleep 1000.{}", process::id());
    let slow = bench.overlay("slow", &format!("#!/bin/sh\nexec {sleep}\n"));
    // Who is started in a shell's background has interrupts ignored, and so have its children.
    let mut child = Command::new("env")
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_ovl")])
        .args(["start", "--nodes", "2", "--routers", "1", slow.to_str().unwrap()])
        .env("OVL_STATE_DIR", bench.state())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the script", || process(|line| line.trim_end() == sleep).is_some());
    kill("INT", child.id());
    wait_for("the start to end", || child.try_wait().unwrap().is_some());
    bench.wait_for_end();
    bench.assert_nothing_left();
}

#[test]
fn a_lost_folder_is_no_hiding_place() {
    let Some(bench) = Bench::new() else { return };
    bench.well("start --nodes 1 --routers 1");
    let folder = bench.state().join("default");
    for file in ["holder", "cluster.json", "lock", "log"] {
        fs::remove_file(folder.join(file)).unwrap();
    }
    fs::remove_dir(folder.join("work")).unwrap();
    fs::remove_dir(&folder).unwrap();
    assert_eq!(bench.well("stop --all"), "stopped default\n");
    bench.assert_nothing_left();
}

#[test]
fn a_failed_script_ends_the_start() {
    let Some(bench) = Bench::new() else { return };
    let script =
        "#!/bin/sh\n[ $(hostname) = vm-002 ] || exit 0\necho first\necho why >&2\nexit 3\n";
    let bad = bench.overlay("bad", script);
    let (code, error) = bench.ill(&format!("start --nodes 3 --routers 1 {}", bad.display()));
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "ovl: start vm-002: run /etc/init.d/60bad.rc: exit status: 3\n  first\n  why\n"
    );
    bench.assert_nothing_left();
}

#[test]
fn bad_input_is_one_clear_line() {
    let Some(bench) = Bench::new() else { return };
    bench.write("broken.topo", "size nonsense\n");
    bench.write("no-tar/default/etc/x", "");
    let tar = bench.write("no-tar/tar", "#!/bin/sh\necho no compiler >&2\nexit 4\n");
    fs::set_permissions(tar, fs::Permissions::from_mode(0o755)).unwrap();
    for (line, start) in [
        ("start --topology no-such", "ovl: find topology no-such: unknown"),
        ("start --topology ./broken.topo", "ovl: "),
        ("start no-such", "ovl: find overlay \"no-such\": "),
        ("start ./no-tar", "ovl: lay overlay no-tar: run its tar: exit status: 4: no compiler"),
        ("start --topology multihop --routers 2", "ovl: topology multihop: 2 routers: "),
        ("start --bin-dir no-such", "ovl: open folder no-such: "),
        ("run 1 true", "ovl: find cluster default: it is not running"),
        ("shell 1", "ovl: find cluster default: it is not running"),
        ("scale out 5", "ovl: find cluster default: it is not running"),
        ("tcpdump 1 eth1", "ovl: find cluster default: it is not running"),
        ("impair 1 eth1 loss 1%", "ovl: find cluster default: it is not running"),
        ("cp a b", "ovl: copy a: neither side is on a node"),
    ] {
        let (code, error) = bench.ill(line);
        assert_eq!((code, error.lines().count()), (1, 1), "{line}: {error}");
        assert!(error.starts_with(start), "{line}: {error}");
        bench.assert_nothing_left();
    }
    for line in [
        "start --nodes 201",
        "start --set x",
        "start --cluster ../x",
        "run 241 true",
        "run 1",
        "scale up 1",
    ] {
        assert_eq!(bench.ill(line).0, 2, "{line}");
    }
}

#[test]
fn without_rights_nothing_starts() {
    let Some(bench) = Bench::new() else { return };
    let with = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(words).arg(env!("CARGO_BIN_EXE_ovl")).arg("start");
        let output = command.env("OVL_STATE_DIR", bench.state()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let user = with(&["--reuid", "65534", "--clear-groups"]);
    assert_eq!(
        user,
        "ovl: start cluster default: namespaces and bridges need root: run it with sudo\n"
    );
    let bounded = with(&["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    assert!(bounded.starts_with("ovl: make namespaces (does this kernel have"), "{bounded}");
    assert_eq!(bounded.lines().count(), 1, "{bounded}");
    bench.assert_nothing_left();
}
