//! The command line, and the settings that it stands for.

use std::hash::{BuildHasher as _, RandomState};

use anyhow::{Context as _, Result, bail, ensure};
use traffic::flags::{CommandLine, Flag, Operands};
use traffic_sys::tun::Kind;

use crate::instructions::{self, Instructions};

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "evil",
    summary: "\
Stands in the way of packets and does to them what networks do at their worst:
loses, delays, doubles, reorders and corrupts them, and sends fragments in other
orders. For tests.

It makes the devices that it reads from and writes to, and they vanish with it.
With -link A,B what enters the tap A leaves by the tap B, and back. With -loop A
the packets that are routed to the tun device A come in by it again; -loop A,B has
another one for the other direction. When it is ready it says so on stderr.

SIGUSR1 lets it print a line of JSON with what it has done so far; SIGTERM and
SIGINT end it with such a line.

Instructions, carried out in their order:
loss P, duplicate P, corrupt P [mended|header], delay T [J] [reorder P], rate R,
reverse [P], shuffle [P], interleave N, hold T, limit N; for some frames only
behind all, whole, fragments, first, later or last; for one direction behind
there, back or both. -words tells more.",
    flags: &[
        Flag {
            name: "link",
            value: "A,B",
            help: "Make two taps and join them",
            slot: |args| &mut args.link,
        },
        Flag {
            name: "loop",
            value: "A[,B]",
            help: "Make a tun device, or one for each direction, whose packets come in again",
            slot: |args| &mut args.loop_back,
        },
        Flag {
            name: "mtu",
            value: "BYTES",
            help: "The longest packet of these devices",
            slot: |args| &mut args.mtu,
        },
        Flag {
            name: "seed",
            value: "N",
            help: "Makes what it does repeatable; 0 = otherwise each time",
            slot: |args| &mut args.seed,
        },
        Flag {
            name: "memory",
            value: "MB",
            help: "What may be held in each direction",
            slot: |args| &mut args.memory,
        },
        Flag {
            name: "words",
            value: "",
            help: "Explain the instructions",
            slot: |args| &mut args.words,
        },
        Flag {
            name: "check",
            value: "",
            help: "Just see whether the instructions make sense",
            slot: |args| &mut args.check,
        },
    ],
    operands: Some(Operands { form: "[INSTRUCTION]...", slot: |args| &mut args.instructions }),
};

/// The flags as given.
pub struct Args {
    link: String,
    loop_back: String,
    mtu: u32,
    seed: i64,
    memory: u32,
    words: bool,
    check: bool,
    instructions: Vec<String>,
}

/// What there is to do.
pub enum Task {
    Explain,
    Nothing,
    Run(Settings),
}

#[derive(Debug)]
pub struct Settings {
    pub kind: Kind,
    pub devices: Vec<String>,
    pub mtu: u32,
    pub seed: u64,
    pub most_bytes: usize,
    /// There and back.
    pub instructions: [Instructions; 2],
}

/// What a tun device can have; a tap has room for the header of Ethernet besides.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65_521;

impl Default for Args {
    fn default() -> Self {
        Self {
            link: String::new(),
            loop_back: String::new(),
            mtu: 1500,
            seed: 0,
            memory: 64,
            words: false,
            check: false,
            instructions: Vec::new(),
        }
    }
}

impl Args {
    pub fn into_task(self) -> Result<Task> {
        if self.words {
            return Ok(Task::Explain);
        }
        // An argument may hold several words, as a shell variable does.
        let words: Vec<&str> =
            self.instructions.iter().flat_map(|argument| argument.split_whitespace()).collect();
        let instructions = instructions::parse(&words)?;
        if self.check {
            return Ok(Task::Nothing);
        }
        let (kind, names) = match (self.link.as_str(), self.loop_back.as_str()) {
            (link, "") if !link.is_empty() => (Kind::Tap, link),
            ("", loop_back) if !loop_back.is_empty() => (Kind::Tun, loop_back),
            ("", "") => bail!("one of -link and -loop is needed"),
            _ => bail!("-link and -loop exclude each other"),
        };
        let devices: Vec<String> = names.split(',').map(str::to_owned).collect();
        match kind {
            Kind::Tap => ensure!(devices.len() == 2, "link {names}: not two devices: A,B"),
            Kind::Tun => ensure!(devices.len() <= 2, "loop {names}: more than two devices"),
        }
        ensure!(devices.first() != devices.get(1), "{names}: the same device twice");
        if devices.len() == 1 && !instructions[1].treatments.is_empty() && words.contains(&"back") {
            bail!("back: there is one direction only, because -loop names one device");
        }
        ensure!(MTU.contains(&self.mtu), "mtu {}: not {MTU:?}", self.mtu);
        let most_bytes = usize::try_from(self.memory)?.checked_mul(1 << 20);
        Ok(Task::Run(Settings {
            kind,
            devices,
            mtu: self.mtu,
            seed: match self.seed {
                0 => RandomState::new().hash_one(()),
                seed => seed.cast_unsigned(),
            },
            most_bytes: most_bytes.context("memory: too much")?,
            instructions,
        }))
    }
}

#[cfg(test)]
mod tests {
    use traffic::flags::Request;

    use super::*;

    fn task(line: &str) -> Result<Task, String> {
        let Ok(Request::Run(args)) = COMMAND_LINE.parse(line.split(' ')) else {
            panic!("{line}");
        };
        args.into_task().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn devices_and_instructions() {
        let Ok(Task::Run(link)) = task("-link a,b loss 1% -mtu 9000 -seed 7") else { panic!() };
        assert_eq!((link.kind, link.mtu, link.seed), (Kind::Tap, 9000, 7));
        assert_eq!(link.devices, ["a", "b"]);
        assert_eq!(link.instructions[1].treatments.len(), 1);
        let Ok(Task::Run(one)) = task("-loop a reverse") else { panic!() };
        assert_eq!((one.kind, one.devices.len()), (Kind::Tun, 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, message) in [
            ("loss 1%", "one of -link and -loop is needed"),
            ("-link a,b -loop c", "-link and -loop exclude each other"),
            ("-link a", "link a: not two devices: A,B"),
            ("-loop a,b,c", "loop a,b,c: more than two devices"),
            ("-loop a,a", "a,a: the same device twice"),
            (
                "-loop a back loss 1%",
                "back: there is one direction only, because -loop names one device",
            ),
            ("-loop a -mtu 100", "mtu 100: not 1280..=65521"),
            (
                "-check los",
                "read los: no such word (loss, duplicate, corrupt, delay, rate, reverse, shuffle, interleave, hold, limit; all, whole, fragments, first, later, last; there, back, both)",
            ),
        ] {
            assert_eq!(task(line).err().as_deref(), Some(message), "{line}");
        }
        assert!(matches!(task("-check loss 1%"), Ok(Task::Nothing)));
    }
}
