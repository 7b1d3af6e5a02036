//! The text of a scenario file.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Action, Expected, Feature, Nodes, Scenario, Step, Verb};
use crate::address::{NodeId, Role};
use crate::case::On;
use crate::lab::Layout;
use crate::topology::plan::{Size, Variables};

/// How long a scenario may take that does not say so.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a step may take that does not say so.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// The longest time that can be asked for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads a file's text; errors begin with FILE:LINE.
pub fn parse(file: &str, text: &str) -> Result<Scenario> {
    let mut reader = Reader::default();
    for (number, line) in (1..).zip(text.lines()) {
        reader.line(number, line).with_context(|| format!("{file}:{number}"))?;
    }
    // Such a step would pass whatever happens.
    if let Some(step) = reader.steps.iter().find(|step| step.actions.is_empty()) {
        bail!("{file}:{}: step {:?} has no action", step.line, step.title);
    }
    if reader.steps.is_empty() {
        bail!("{file}:{}: the file ends without a step", text.lines().count().max(1));
    }
    Ok(reader.end(file.to_owned()))
}

#[derive(Default)]
struct Reader {
    about: Option<String>,
    topology: Option<String>,
    size: Size,
    overlays: Option<Vec<String>>,
    variables: Variables,
    limit: Option<Duration>,
    alone: Option<()>,
    needs: Vec<Feature>,
    on: Option<On>,
    steps: Vec<Step>,
    /// Whether a line that is indented belongs to the command of the line before.
    in_command: bool,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<()> {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if line.starts_with(char::is_whitespace) {
            return self.continue_command(text);
        }
        self.in_command = false;
        let (word, rest) = split_word(text);
        if word == "step" {
            return self.step(number, without_comment(rest));
        }
        if word.ends_with(':') || matches!(word, "within" | "fails" | "same" | "start") {
            self.in_command = true;
            return self.action(number, text);
        }
        if matches!(word, "await" | "stop" | "impair") {
            return self.action(number, without_comment(text));
        }
        self.header(word, without_comment(rest))
    }

    fn continue_command(&mut self, text: &str) -> Result<()> {
        let action = self.steps.last_mut().and_then(|step| step.actions.last_mut());
        match action {
            Some(Action { verb: Verb::Run { command, .. }, .. }) if self.in_command => {
                command.push('\n');
                command.push_str(text);
                Ok(())
            }
            // That is one program.
            Some(Action { verb: Verb::Start { command, .. }, .. }) if self.in_command => {
                command.push(' ');
                command.push_str(text);
                Ok(())
            }
            _ => bail!("an indented line goes on with a command, and there is none before it"),
        }
    }

    fn header(&mut self, word: &str, rest: &str) -> Result<()> {
        const WORDS: [&str; 8] =
            ["about", "topology", "overlays", "set", "limit", "needs", "backend", "alone"];
        if !WORDS.contains(&word) {
            bail!(
                "unknown word {word:?} (about, topology, overlays, set, limit, needs, backend, alone, step, \
                 NODES:, within, fails, same, start, await, stop, impair)"
            );
        }
        if !self.steps.is_empty() {
            bail!("{word} belongs before the first step");
        }
        if rest.is_empty() != (word == "alone") {
            bail!("{word}: {}", if rest.is_empty() { "says nothing" } else { "takes no word" });
        }
        match word {
            "about" => once(&mut self.about, word, rest.to_owned()),
            "topology" => self.topology(rest),
            "overlays" => {
                let names = rest.split_whitespace().map(str::to_owned).collect();
                once(&mut self.overlays, word, names)
            }
            "set" => self.variable(rest),
            "limit" => once(&mut self.limit, word, duration(rest)?),
            "needs" => {
                for name in rest.split_whitespace() {
                    self.needs.push(feature(name)?);
                }
                Ok(())
            }
            "backend" => once(&mut self.on, word, backend(rest)?),
            _ => once(&mut self.alone, word, ()),
        }
    }

    fn topology(&mut self, rest: &str) -> Result<()> {
        let (name, sizes) = split_word(rest);
        once(&mut self.topology, "topology", name.to_owned())?;
        for size in sizes.split_whitespace() {
            let (what, count) = size.split_once('=').unwrap_or((size, ""));
            let place = match what {
                "nodes" => &mut self.size.nodes,
                "routers" => &mut self.size.routers,
                "testers" => &mut self.size.testers,
                _ => bail!("topology: unknown size {size:?} (nodes=N, routers=N, testers=N)"),
            };
            let count = count.parse().with_context(|| format!("topology: {size:?} is no size"))?;
            once(place, what, count)?;
        }
        Ok(())
    }

    fn variable(&mut self, rest: &str) -> Result<()> {
        let Some((name, value)) = rest.split_once('=').filter(|(name, _)| is_variable(name)) else {
            bail!("set: {rest:?} is not NAME=VALUE");
        };
        if self.variables.insert(name.to_owned(), value.to_owned()).is_some() {
            bail!("set: {name} is set twice");
        }
        Ok(())
    }

    fn step(&mut self, line: usize, rest: &str) -> Result<()> {
        if self.about.is_none() {
            bail!("a step, but no line `about TEXT` before it");
        }
        if self.topology.is_none() {
            bail!("a step, but no line `topology NAME` before it");
        }
        let (limit, title) = match split_word(rest) {
            ("within", rest) => {
                let (limit, title) = split_word(rest);
                (duration(limit)?, title)
            }
            _ => (STEP_LIMIT, rest),
        };
        if title.is_empty() {
            bail!("step: it has no title");
        }
        self.steps.push(Step { line, title: title.to_owned(), limit, actions: Vec::new() });
        Ok(())
    }

    fn action(&mut self, line: usize, text: &str) -> Result<()> {
        let verb = verb(text)?;
        let step =
            self.steps.last_mut().context("an action, but no line `step TITLE` before it")?;
        step.actions.push(Action { line, verb });
        Ok(())
    }

    fn end(self, file: String) -> Scenario {
        Scenario {
            file,
            about: self.about.unwrap_or_default(),
            layout: Layout {
                topology: self.topology.unwrap_or_default(),
                size: self.size,
                overlays: self.overlays.unwrap_or_default(),
                variables: self.variables,
            },
            limit: self.limit.unwrap_or(LIMIT),
            alone: self.alone.is_some(),
            needs: self.needs,
            on: self.on.unwrap_or(On::Any),
            steps: self.steps,
        }
    }
}

fn verb(text: &str) -> Result<Verb> {
    let (word, rest) = split_word(text);
    match word {
        "start" => {
            let (nodes, rest) = split_word(rest);
            let (program, command) = split_word(rest);
            let program =
                program.strip_suffix(':').context("start: not `start NODES NAME: COMMAND`")?;
            Ok(Verb::Start {
                nodes: parse_nodes(nodes)?,
                program: parse_program(program)?,
                command: parse_command(command)?,
            })
        }
        "impair" => {
            let (nodes, rest) = split_word(rest);
            let (device, words) = split_word(rest);
            if words.is_empty() {
                bail!("impair: not `impair NODES DEVICE WORDS` or `impair NODES DEVICE off`");
            }
            Ok(Verb::Impair {
                nodes: parse_nodes(nodes)?,
                device: device.to_owned(),
                words: words.split_whitespace().map(str::to_owned).collect(),
            })
        }
        "await" | "stop" => {
            let (nodes, rest) = split_word(rest);
            let (nodes, program) = (parse_nodes(nodes)?, parse_program(rest)?);
            Ok(match word {
                "await" => Verb::Await { nodes, program },
                _ => Verb::Stop { nodes, program },
            })
        }
        "within" => {
            let (limit, rest) = split_word(rest);
            run(rest, Expected::SuccessWithin(duration(limit)?))
        }
        "fails" => run(rest, Expected::Failure),
        "same" => run(rest, Expected::Same),
        _ => run(text, Expected::Success),
    }
}

fn run(text: &str, expected: Expected) -> Result<Verb> {
    let (nodes, command) = split_word(text);
    let nodes = nodes.strip_suffix(':').with_context(|| format!("{nodes:?} is not NODES:"))?;
    Ok(Verb::Run { nodes: parse_nodes(nodes)?, expected, command: parse_command(command)? })
}

fn parse_nodes(text: &str) -> Result<Nodes> {
    match text {
        "all" => return Ok(Nodes::All),
        "vm" => return Ok(Nodes::OfRole(Role::Server)),
        "router" => return Ok(Nodes::OfRole(Role::Router)),
        "tester" => return Ok(Nodes::OfRole(Role::Tester)),
        _ => {}
    }
    let number = |text: &str| text.parse().ok().and_then(NodeId::new);
    let ranges: Option<Vec<(NodeId, NodeId)>> = text
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        })
        .collect();
    let ranges = ranges.with_context(|| {
        format!(
            "{text:?} are no nodes (all, vm, router, tester, or numbers of 1 to 240 as in 1-3,201)"
        )
    })?;
    Ok(Nodes::Numbered(ranges))
}

fn parse_program(text: &str) -> Result<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || !text.chars().all(fits) {
        bail!("{text:?} is no name of a program (small letters, digits and -)");
    }
    Ok(text.to_owned())
}

fn parse_command(text: &str) -> Result<String> {
    if text.is_empty() {
        bail!("there is no command");
    }
    Ok(text.to_owned())
}

fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => 0,
    };
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let duration = ms.map(Duration::from_millis);
    duration
        .filter(|duration| !duration.is_zero() && *duration <= LONGEST)
        .with_context(|| format!("{text:?} is no duration of at most a day (500ms, 10s, 2m)"))
}

fn feature(name: &str) -> Result<Feature> {
    match name {
        "nfqueue" => Ok(Feature::Nfqueue),
        _ => bail!("needs: unknown feature {name:?} (nfqueue)"),
    }
}

fn backend(name: &str) -> Result<On> {
    match name {
        "ns" => Ok(On::Namespaces),
        "vm" => Ok(On::Machines),
        _ => bail!("backend: unknown {name:?} (ns, vm)"),
    }
}

fn is_variable(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(fits) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn once<T>(place: &mut Option<T>, what: &str, value: T) -> Result<()> {
    if place.replace(value).is_some() {
        bail!("{what} is there twice");
    }
    Ok(())
}

fn split_word(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()))
}

/// What stands before a `#` that begins a word.
fn without_comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    let comment = text.match_indices('#').map(|(at, _)| &text[..at]);
    let before = comment.into_iter().find(|before| before.ends_with(char::is_whitespace));
    before.unwrap_or(text).trim_end()
}

#[cfg(test)]
mod tests;
