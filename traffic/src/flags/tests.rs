use std::os::unix::ffi::OsStringExt as _;

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq)]
struct Args {
    address: String,
    udp: bool,
    reconnect: bool,
    nconn: u32,
    concurrent: NonZeroU32,
    seed: i64,
    timeout: Duration,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            address: "[::1]:5001".to_owned(),
            udp: false,
            reconnect: true,
            nconn: 1,
            concurrent: NonZeroU32::new(64).unwrap(),
            seed: 0,
            timeout: Duration::from_secs(10),
        }
    }
}

macro_rules! flag {
    ($field:ident, $value:literal) => {
        Flag {
            name: stringify!($field),
            value: $value,
            help: "Some help",
            slot: |args| &mut args.$field,
        }
    };
}

const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "tool",
    summary: "A tool.",
    flags: &[
        flag!(address, "A:P"),
        flag!(udp, ""),
        flag!(reconnect, ""),
        flag!(nconn, "N"),
        flag!(concurrent, "N"),
        flag!(seed, "N"),
        flag!(timeout, "DURATION"),
    ],
    operands: None,
};

fn run(arguments: &[&str]) -> Args {
    match COMMAND_LINE.parse(arguments) {
        Ok(Request::Run(args)) => args,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn error(arguments: &[&str]) -> String {
    COMMAND_LINE.parse(arguments).unwrap_err().to_string()
}

#[test]
fn every_way_to_give_a_value_means_the_same() {
    for arguments in [
        &["-nconn", "7"][..],
        &["--nconn", "7"],
        &["-nconn=7"],
        &["--nconn=7"],
        &["-nconn=1", "-nconn=7"],
    ] {
        assert_eq!(run(arguments).nconn, 7, "{arguments:?}");
    }
}

#[test]
fn a_switch_takes_no_argument_of_its_own() {
    let args = run(&["-udp", "-reconnect=false", "-nconn", "2"]);
    assert!(args.udp);
    assert!(!args.reconnect);
    assert_eq!(args.nconn, 2);
    assert!(!run(&["-udp", "-udp=F"]).udp);
    assert_eq!(
        error(&["-udp", "true"]),
        "unexpected argument: \"true\" (a switch takes its value as -switch=false)"
    );
}

#[test]
fn what_is_not_given_keeps_its_default() {
    let args = run(&["-udp"]);
    assert_eq!(args, Args { udp: true, ..Args::default() });
}

#[test]
fn a_value_may_look_like_a_flag_or_hold_an_equals_sign() {
    assert_eq!(run(&["-seed", "-5"]).seed, -5);
    assert_eq!(run(&["-address", "-udp"]).address, "-udp");
    assert_eq!(run(&["-address=a=b"]).address, "a=b");
    assert_eq!(run(&["-address="]).address, "");
}

#[test]
fn operands_are_taken_where_there_may_be_any() {
    #[derive(Debug, Default, PartialEq)]
    struct Args {
        udp: bool,
        operands: Vec<String>,
    }
    let line = CommandLine::<Args> {
        program: "tool",
        summary: "A tool.",
        flags: &[Flag { name: "udp", value: "", help: "", slot: |args| &mut args.udp }],
        operands: Some(Operands { form: "[IP PORT]", slot: |args| &mut args.operands }),
    };
    let expected = Args { udp: true, operands: vec!["::1".to_owned(), "-".to_owned()] };
    assert_eq!(line.parse(["::1", "-udp", "-"]), Ok(Request::Run(expected)));
    assert!(line.usage().starts_with("Usage: tool [-flag value]... [IP PORT]\n"));
}

#[test]
fn help_version_and_nothing() {
    for arguments in [&["-help"][..], &["-h"], &["--help"], &["-udp", "-h", "-x"]] {
        assert_eq!(COMMAND_LINE.parse(arguments), Ok(Request::Help));
    }
    assert_eq!(COMMAND_LINE.parse(["-version"]), Ok(Request::Version));
    assert_eq!(COMMAND_LINE.parse(["-print", "man"]), Ok(Request::Print(Print::Man)));
    assert_eq!(COMMAND_LINE.parse(["-version=false"]), Ok(Request::Run(Args::default())));
    assert_eq!(COMMAND_LINE.parse(Vec::<OsString>::new()), Ok(Request::Nothing));
}

#[test]
fn errors_name_the_flag_and_the_value() {
    for (arguments, message) in [
        (&["-print=html"][..], "flag -print: bad value \"html\": neither man, bash, zsh nor fish"),
        (&["-bogus"], "unknown flag: -bogus"),
        (&["--bogus=1"], "unknown flag: -bogus"),
        (&["-version", "-bogus"], "unknown flag: -bogus"),
        (&["-nconn"], "flag -nconn: needs a value"),
        (&["-nconn=x"], "flag -nconn: bad value \"x\": invalid digit found in string"),
        (&["-nconn", "-1"], "flag -nconn: bad value \"-1\": invalid digit found in string"),
        (
            &["-concurrent", "0"],
            "flag -concurrent: bad value \"0\": number would be zero for non-zero type",
        ),
        (&["-udp=maybe"], "flag -udp: bad value \"maybe\": neither true nor false"),
        (
            &["-timeout", "10"],
            "flag -timeout: bad value \"10\": no unit behind the number (ns, us, ms, s, m or h)",
        ),
    ] {
        assert_eq!(error(arguments), message);
    }
    for stray in ["x", "", "-", "--", "---udp", "-=x"] {
        assert_eq!(COMMAND_LINE.parse([stray]), Err(FlagError::Unexpected(stray.to_owned())));
    }
    let bytes = OsString::from_vec(vec![b'-', 0xff]);
    assert_eq!(COMMAND_LINE.parse([bytes.clone()]), Err(FlagError::NotUtf8(bytes)));
}

#[test]
fn usage_shows_every_flag_and_the_defaults_that_say_something() {
    assert_eq!(
        COMMAND_LINE.usage(),
        "\
Usage: tool [-flag value]...

A tool.

Flags:
  -address A:P
        Some help (default [::1]:5001)
  -udp
        Some help
  -reconnect
        Some help (default true)
  -nconn N
        Some help (default 1)
  -concurrent N
        Some help (default 64)
  -seed N
        Some help (default 0)
  -timeout DURATION
        Some help (default 10s)
  -help
        Print this text
  -version
        Print the version
  -print man|bash|zsh|fish
        Print a manual page, or the completions of a shell
"
    );
}

proptest! {
    #[test]
    fn any_command_line_is_answered(arguments: Vec<String>) {
        let _ = COMMAND_LINE.parse(arguments);
    }
}
