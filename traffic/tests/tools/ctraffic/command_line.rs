//! The command line.

use crate::harness::{CTRAFFIC, run};

#[test]
fn usage_manual_and_completions() {
    let nothing = run(CTRAFFIC, &[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, ""));
    assert!(nothing.stderr.starts_with("Usage: ctraffic "));
    for (what, part) in [
        ("man", ".TH ctraffic 1"),
        ("bash", "complete -F _ctraffic ctraffic"),
        ("zsh", "#compdef ctraffic"),
        ("fish", "complete -c ctraffic -o nconn"),
    ] {
        let printed = run(CTRAFFIC, &["-print", what]);
        assert_eq!((printed.code, printed.stderr.as_str()), (0, ""));
        assert!(printed.stdout.contains(part), "{printed:?}");
    }
}

#[test]
fn a_bad_command_line_is_refused() {
    for (code, arguments, complaint) in [
        (2, &["-bogus"][..], "unknown flag: -bogus"),
        (2, &["-nconn=0"], "flag -nconn: bad value \"0\""),
        (2, &["-stats=some"], "neither none, summary nor all"),
        (2, &["-fail-on=late"], "\"late\" is neither lost, failed nor dropped"),
        (1, &["-rate=0"], "rate 0: no rate above 0"),
        (1, &["-client=http"], "client \"http\": there is only echo"),
        (1, &["-nconn=4000000000"], "open 4000000000 connections: only "),
        (1, &["-srcfile=/nowhere"], "read source addresses /nowhere: No such file"),
        (1, &["-stat_file=/nowhere"], "read statistics /nowhere: No such file"),
    ] {
        let run = run(CTRAFFIC, arguments);
        assert_eq!(run.code, code, "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(complaint), "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("ctraffic: "));
        assert_eq!(run.stdout, "");
    }
}
