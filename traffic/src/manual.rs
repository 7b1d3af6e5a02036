//! What `-print` writes: a manual page, and the completions of shells. All of
//! it follows from the declared flags.

use std::fmt::Write as _;

use crate::flags::{CommandLine, Declared};

/// What to print instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Print {
    Man,
    Bash,
    Zsh,
    Fish,
}

impl Print {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "man" => Print::Man,
            "bash" => Print::Bash,
            "zsh" => Print::Zsh,
            "fish" => Print::Fish,
            _ => return None,
        })
    }

    pub fn text<Args: Default>(self, line: &CommandLine<Args>) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match self {
            Print::Man => man(&mut text, line),
            Print::Bash => bash(&mut text, line),
            Print::Zsh => zsh(&mut text, line),
            Print::Fish => fish(&mut text, line),
        };
        text
    }
}

fn man<Args: Default>(out: &mut String, line: &CommandLine<Args>) -> std::fmt::Result {
    let program = line.program;
    let first = line.summary.split(". ").next().unwrap_or_default().replace('\n', " ");
    let version = env!("CARGO_PKG_VERSION");
    writeln!(out, ".TH {program} 1 \"\" \"{program} {version}\"")?;
    writeln!(out, ".SH NAME\n{program} \\- {}", roff(first.trim_end_matches('.')))?;
    let operands = line.operands.as_ref().map_or("", |operands| operands.form);
    writeln!(out, ".SH SYNOPSIS\n.B {program}\n[\\-\\fIflag\\fR [\\fIvalue\\fR]]... {operands}")?;
    writeln!(out, ".SH DESCRIPTION")?;
    for paragraph in line.summary.split("\n\n") {
        writeln!(out, ".PP\n{}", roff(paragraph))?;
    }
    writeln!(out, ".SH OPTIONS")?;
    for flag in line.declared() {
        writeln!(out, ".TP\n\\fB\\-{}\\fR \\fI{}\\fR", roff(flag.name), roff(flag.value))?;
        let default = match flag.default.as_str() {
            "" => String::new(),
            default => format!(" (default {default})"),
        };
        writeln!(out, "{}{}", roff(flag.help), roff(&default))?;
    }
    Ok(())
}

/// Text that roff takes as it is.
fn roff(text: &str) -> String {
    text.lines()
        .map(|line| {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            match line.starts_with(['.', '\'']) {
                true => format!("\\&{line}"),
                false => line,
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words that a flag's value is one of, from its form `one|two`.
fn choices(flag: &Declared) -> Option<String> {
    flag.value.contains('|').then(|| flag.value.replace('|', " "))
}

fn takes_file(flag: &Declared) -> bool {
    flag.value == "FILE"
}

fn bash<Args: Default>(out: &mut String, line: &CommandLine<Args>) -> std::fmt::Result {
    let program = line.program;
    let function = program.replace('-', "_");
    writeln!(out, "_{function}() {{")?;
    writeln!(out, "    local word=${{COMP_WORDS[COMP_CWORD]}}")?;
    writeln!(out, "    case ${{COMP_WORDS[COMP_CWORD - 1]}} in")?;
    let mut names = Vec::new();
    for flag in line.declared() {
        let name = flag.name;
        names.push(format!("-{name}"));
        let reply = match choices(&flag) {
            Some(words) => format!("COMPREPLY=($(compgen -W '{words}' -- \"$word\"))"),
            None if takes_file(&flag) => "COMPREPLY=($(compgen -f -- \"$word\"))".to_owned(),
            None if flag.value.is_empty() => continue,
            None => "COMPREPLY=()".to_owned(),
        };
        writeln!(out, "        -{name} | --{name}) {reply} ; return ;;")?;
    }
    writeln!(out, "    esac")?;
    writeln!(out, "    COMPREPLY=($(compgen -W '{}' -- \"$word\"))", names.join(" "))?;
    writeln!(out, "}}\ncomplete -F _{function} {program}")
}

fn zsh<Args: Default>(out: &mut String, line: &CommandLine<Args>) -> std::fmt::Result {
    writeln!(out, "#compdef {}\n_arguments \\", line.program)?;
    for flag in line.declared() {
        let help: String = flag.help.chars().filter(|c| !"'[]:".contains(*c)).collect();
        let value = match choices(&flag) {
            Some(words) => format!(":value:({words})"),
            None if takes_file(&flag) => ":file:_files".to_owned(),
            None if flag.value.is_empty() => String::new(),
            None => ":value: ".to_owned(),
        };
        writeln!(out, "    '-{}[{help}]{value}' \\", flag.name)?;
    }
    writeln!(out, "    && return 0")
}

fn fish<Args: Default>(out: &mut String, line: &CommandLine<Args>) -> std::fmt::Result {
    for flag in line.declared() {
        let help = flag.help.replace('\\', "\\\\").replace('\'', "\\'");
        let value = match choices(&flag) {
            Some(words) => format!(" -x -a '{words}'"),
            None if takes_file(&flag) => " -r".to_owned(),
            None if flag.value.is_empty() => String::new(),
            None => " -x".to_owned(),
        };
        writeln!(out, "complete -c {} -o {}{value} -d '{help}'", line.program, flag.name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flag;

    #[derive(Default)]
    struct Args {
        udp: bool,
        output: String,
        list: String,
    }

    const LINE: CommandLine<Args> = CommandLine {
        program: "a-tool",
        summary: "Does what tools do. And more.\n\n.Not a macro, and a \\.",
        flags: &[
            Flag { name: "udp", value: "", help: "Use UDP", slot: |args| &mut args.udp },
            Flag {
                name: "output",
                value: "txt|json",
                help: "It's a form: [x]",
                slot: |args| &mut args.output,
            },
            Flag { name: "list", value: "FILE", help: "A list", slot: |args| &mut args.list },
        ],
        operands: None,
    };

    #[test]
    fn a_manual_page_names_all_and_takes_text_literally() {
        let page = Print::Man.text(&LINE);
        assert!(page.contains(".SH NAME\na-tool \\- Does what tools do\n"), "{page}");
        assert!(page.contains("\n\\&.Not a macro, and a \\e.\n"), "{page}");
        assert!(page.contains(".TP\n\\fB\\-output\\fR \\fItxt|json\\fR\nIt's a form: [x]\n"));
        assert!(page.contains("\\fB\\-version\\fR"));
    }

    #[test]
    fn bash_offers_flags_choices_and_files() {
        let text = Print::Bash.text(&LINE);
        assert!(text.contains("-output | --output) COMPREPLY=($(compgen -W 'txt json'"), "{text}");
        assert!(text.contains("-list | --list) COMPREPLY=($(compgen -f"));
        assert!(text.contains("compgen -W '-udp -output -list -help -version -print'"));
        assert!(text.contains("_a_tool() {"));
        assert!(text.ends_with("complete -F _a_tool a-tool\n"));
    }

    #[test]
    fn zsh_and_fish_quote_the_help() {
        let zsh = Print::Zsh.text(&LINE);
        assert!(zsh.contains("'-output[Its a form x]:value:(txt json)'"), "{zsh}");
        let fish = Print::Fish.text(&LINE);
        assert!(fish.contains("-o output -x -a 'txt json' -d 'It\\'s a form: [x]'"), "{fish}");
        assert!(fish.contains("-o udp -d 'Use UDP'"));
    }
}
