//! Command lines with words in braces.

use std::process::Command;

use super::lab::MARKS;

/// A shell command line in which `{queue}`, `{marks}`, `{m}` and `{mark}` stand for what is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(String);

impl CommandLine {
    /// As the user gave it.
    pub fn new(text: &str) -> Self {
        CommandLine(text.into())
    }

    /// With the number of slots and of the queue, and all marks.
    pub fn start(&self, slots: u32, queue: u16) -> Command {
        let marks = MARKS.map(|mark| mark.to_string()).join(" ");
        self.shell(&[
            ("{queue}", &queue.to_string()),
            ("{marks}", &marks),
            ("{m}", &slots.to_string()),
        ])
    }

    /// With one mark.
    pub fn change(&self, mark: u32) -> Command {
        self.shell(&[("{mark}", &mark.to_string())])
    }

    /// What else is in braces is the shell's.
    fn shell(&self, words: &[(&str, &str)]) -> Command {
        let line =
            words.iter().fold(self.0.clone(), |line, (word, value)| line.replace(word, value));
        let mut command = Command::new("sh");
        command.args(["-c", &line]);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: &Command) -> String {
        command.get_args().last().unwrap().to_str().unwrap().into()
    }

    #[test]
    fn words_are_replaced_and_the_shell_keeps_its_own() {
        let given = CommandLine::new("x --M={m} {marks}; exec y --q={queue} ${Z} {mark} {queue}");
        assert_eq!(
            line(&given.start(997, 3)),
            "x --M=997 101 102 103 104; exec y --q=3 ${Z} {mark} 3"
        );
        assert_eq!(line(&CommandLine::new("x {mark} {m}").change(102)), "x 102 {m}");
    }
}
