//! Tests of the project's own overlays, as far as they need no cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn own() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/overlays"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Runs a line with the verbs at hand; `$1` is a file with `input`.
fn verb(line: &str, input: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), input).unwrap();
    let verbs = own().join("base/default/usr/lib/ovl/verbs.sh");
    let script = format!(". {}; set -eu; {line}", verbs.display());
    Command::new("sh").args(["-c", &script, "sh"]).arg(file.path()).output().unwrap()
}

fn complaint(line: &str, input: &str) -> String {
    let output = verb(line, input);
    assert!(!output.status.success(), "{line}: {input}");
    String::from_utf8(output.stderr).unwrap()
}

fn report(hosts: &str, failed: u32) -> String {
    format!(
        r#"{{"hosts":{{{hosts}}},"connects":40,"failed_connects":0,"failed_reads":{failed},"start_time":"2026-01-01T00:00:00Z","timeout":2000000000,"duration":5}}"#
    )
}

#[test]
fn scripts_are_well_formed() {
    let mut files = Vec::new();
    files_below(own(), &mut files);
    let mut scripts = 0;
    for path in files {
        let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o111 == 0o111;
        let name = path.file_name().unwrap().to_str().unwrap();
        let runs =
            name.ends_with(".rc") || name == "tar" || path.parent().unwrap().ends_with("cgi-bin");
        assert_eq!(executable, runs, "{}", path.display());
        if runs || name.ends_with(".sh") {
            assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success());
            scripts += 1;
        }
    }
    assert!(scripts >= 8, "{scripts} scripts");
}

#[test]
fn a_good_report_of_mconnect_passes() {
    let even = report(r#""vm-001":9,"vm-002":11,"vm-003":20"#, 0);
    assert!(verb("check_mconnect $1 3 40 50", &even).status.success());
    // Laid out for people.
    let spread = even.replace(',', ",\n  ").replace(':', ": ");
    assert!(verb("check_mconnect $1 3 40 50", &spread).status.success());
}

#[test]
fn a_bad_report_of_mconnect_is_told() {
    let check = "check_mconnect $1 3 40 50";
    let hosts = r#""vm-001":5,"vm-002":14,"vm-003":21"#;
    assert_eq!(
        complaint(check, &report(hosts, 0)),
        "mconnect: \"vm-001\":5 of 40 is not within 50 % of the mean\n\
         mconnect: \"vm-003\":21 of 40 is not within 50 % of the mean\n"
    );
    assert_eq!(
        complaint(check, &report(r#""vm-001":20,"vm-002":20"#, 0)),
        "mconnect: 2 hosts answered, not 3: \"vm-001\":20,\"vm-002\":20\n"
    );
    let failed = complaint("check_mconnect $1 3 40 99", &report(hosts, 1));
    assert_eq!(failed, "mconnect: failed_reads is 1\n");
    let lost = complaint(check, &report(r#""vm-001":13,"vm-002":13,"vm-003":13"#, 0));
    assert_eq!(lost, "mconnect: 39 connections were answered, not 40\n");
    assert!(complaint(check, &report("", 0)).contains("0 hosts answered, not 3"));
    for rubbish in ["", "{}", "Failed connects; 0\nvm-001 40\n"] {
        let complaint = complaint(check, rubbish);
        assert!(complaint.contains("mconnect: failed_connects is missing\n"), "{complaint}");
    }
    assert!(complaint("check_mconnect /no/such/file 3 40 50", "").contains("/no/such/file"));
}

#[test]
fn the_margin_grows_with_the_number_of_hosts() {
    let output = verb("for n in 1 20 21 60 100 200; do margin $n; done", "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "50\n50\n50\n70\n90\n90\n");
}

#[test]
fn waiting_has_an_end() {
    let output = verb("within 0 echo done", "");
    assert_eq!(output.stdout, b"done\n");
    assert_eq!(
        complaint("within 0 sh -c 'echo no; false'", ""),
        "sh -c echo no; false: no success in time; last: no\n"
    );
}

#[test]
fn options_of_the_shell_stay_as_they_are() {
    assert!(complaint("echo $nosuch", "").contains("nosuch"));
    let verbs = own().join("base/default/usr/lib/ovl/verbs.sh");
    let script =
        format!("set -eu; . {}; case $- in *e*u*|*u*e*) ;; *) exit 1 ;; esac", verbs.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

#[test]
fn the_info_page_has_the_length_that_is_known() {
    for client in ["", "[::ffff:20.0.0.1]"] {
        let info = own().join("mserver/default/srv/mserver/cgi-bin/info");
        let output = Command::new(info).env("REMOTE_ADDR", client).output().unwrap();
        let reply = String::from_utf8(output.stdout).unwrap();
        assert_eq!(reply.len(), 3688);
        let (header, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(header.contains(&format!("Content-Length: {}", body.len())), "{header}");
        assert!(body.contains(&format!("client: {client}\n")));
    }
}
