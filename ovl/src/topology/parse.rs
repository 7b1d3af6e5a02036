//! Reads topology files: text to lines, a line at a time.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::SplitWhitespace;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::file::{
    Addressing, Condition, Count, Destination, Gateway, Hop, Line, Route, SizeRange, Statement,
    Table, Topology, Who,
};
use crate::address::{NetId, NodeId, Role};

/// Far more than any cluster needs.
pub const FILE_LIMIT: usize = 64 * 1024;

const LINE_LIMIT: usize = 1000;

/// How many devices a node may have, eth0 included.
const DEVICE_LIMIT: usize = 16;

const NAME_LIMIT: usize = 15;

/// IPv6 does not work below.
pub const LEAST_MTU: u16 = 1280;

/// Reads a file; `file` is for messages. Whether its lines fit together is not looked at.
pub fn parse(name: &str, file: &str, text: &str) -> Result<Topology> {
    ensure!(text.len() <= FILE_LIMIT, "{file}: more than {FILE_LIMIT} bytes");
    let mut header = Header::default();
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        let text = text.split_once('#').map_or(text, |(statement, _)| statement).trim();
        if text.is_empty() {
            continue;
        }
        ensure!(lines.len() < LINE_LIMIT, "{file}:{number}: more than {LINE_LIMIT} statements");
        let at = |error: anyhow::Error| anyhow!("{file}:{number}: {error:#}");
        if !header.read(text).map_err(at)? {
            let line = Words::new(text).line(number).map_err(at)?;
            no_repetition(&lines, &line).map_err(at)?;
            lines.push(line);
        }
    }
    Ok(Topology {
        name: name.to_owned(),
        about: header.about.with_context(|| format!("{file}: no `about` line"))?,
        size: header.size.with_context(|| format!("{file}: no `size` line"))?,
        net_names: header.net_names,
        lines,
        file: file.to_owned(),
    })
}

/// The same thing said twice about the same nodes: one of them is a mistake.
fn no_repetition(lines: &[Line], line: &Line) -> Result<()> {
    let subjects = line.what.subjects();
    for (index, subject) in subjects.iter().enumerate() {
        ensure!(!subjects[..index].contains(subject), "{subject} is named twice");
    }
    let alike =
        lines.iter().filter(|other| other.who == line.who && other.condition == line.condition);
    for other in alike {
        let others = other.what.subjects();
        if let Some(subject) = subjects.iter().find(|subject| others.contains(subject)) {
            bail!("line {} has said {subject} for these nodes already", other.number);
        }
    }
    Ok(())
}

/// The statements that are about no nodes.
#[derive(Default)]
struct Header {
    about: Option<String>,
    size: Option<SizeRange>,
    net_names: BTreeMap<NetId, String>,
}

impl Header {
    /// Returns whether it was such a statement.
    fn read(&mut self, text: &str) -> Result<bool> {
        let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match keyword {
            "about" => {
                ensure!(self.about.is_none(), "a second `about`");
                ensure!(!rest.trim().is_empty(), "`about` without a text");
                ensure!(!rest.contains(char::is_control), "`about` with control characters");
                self.about = Some(rest.trim().to_owned());
            }
            "size" => {
                ensure!(self.size.is_none(), "a second `size`");
                self.size = Some(Words::new(rest).size()?);
            }
            "net" => {
                let (net, name) = Words::new(rest).net_name()?;
                ensure!(!self.net_names.contains_key(&net), "net {} has a name already", net.0);
                let taken = self.net_names.values().any(|other| *other == name);
                ensure!(!taken, "another net is called `{name}`");
                self.net_names.insert(net, name);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The words of a line that are still to be read.
struct Words<'a> {
    words: std::iter::Peekable<SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self { words: text.split_whitespace().peekable() }
    }

    fn line(mut self, number: usize) -> Result<Line> {
        let who = self.who()?;
        let what = self.statement()?;
        let condition = if self.take("if") { Some(self.condition()?) } else { None };
        self.end()?;
        Ok(Line { number, who, what, condition })
    }

    fn statement(&mut self) -> Result<Statement> {
        match self.word("a statement")? {
            "nets" => self.node_nets().map(Statement::Nets),
            "plain" => {
                let nets = self.test_nets()?;
                Ok(Statement::Addressing { nets, how: Addressing::None })
            }
            "address" => self.address(),
            "bridge" => self.bridge(),
            "mtu" => {
                let net = self.net()?;
                no_maintenance(&[net])?;
                Ok(Statement::Mtu { net, mtu: mtu(self.word("an MTU")?)? })
            }
            "forward" => Ok(Statement::Forward),
            "route" => self.route().map(Statement::Route),
            other => bail!(
                "unknown word `{other}`: not one of nets, plain, address, bridge, mtu, forward, route"
            ),
        }
    }

    fn node_nets(&mut self) -> Result<Vec<NetId>> {
        let nets = self.nets()?;
        ensure!(nets[0] == NetId(0), "the first of `nets` is 0: eth0 is for maintenance");
        ensure!(nets.len() <= DEVICE_LIMIT, "more than {DEVICE_LIMIT} devices");
        for (index, net) in nets.iter().enumerate() {
            ensure!(!nets[..index].contains(net), "a second device on net {}", net.0);
        }
        Ok(nets)
    }

    fn address(&mut self) -> Result<Statement> {
        let nets = self.test_nets()?;
        let how = match self.word("`as NET` or `from VARIABLE`")? {
            "as" => Addressing::As(self.net()?),
            "from" => Addressing::Template(self.variable()?),
            other => bail!("`{other}` instead of `as NET` or `from VARIABLE`"),
        };
        Ok(Statement::Addressing { nets, how })
    }

    fn bridge(&mut self) -> Result<Statement> {
        let name = self.word("the bridge's name")?;
        ensure!(is_name(name), "`{name}`: {NAME_RULE}");
        ensure!(!name.starts_with("eth") && name != "lo", "`{name}` is the name of a device");
        self.expect("of")?;
        let of = self.test_nets()?;
        ensure!(of.len() > 1, "a bridge is of two nets at least");
        for (index, net) in of.iter().enumerate() {
            ensure!(!of[..index].contains(net), "net {} is in the bridge twice", net.0);
        }
        self.expect("address")?;
        Ok(Statement::Bridge { name: name.to_owned(), of, address: self.net()? })
    }

    fn route(&mut self) -> Result<Route> {
        let mut to = vec![self.destination()?];
        while self.take("and") {
            to.push(self.destination()?);
        }
        let mut hops = vec![self.hop()?];
        while matches!(self.peek(), Some("via" | "on")) {
            hops.push(self.hop()?);
        }
        let table = if self.take("table") { Some(self.table()?) } else { None };
        let route = Route { to, hops, table };
        if route.hops.len() > 1 {
            let several = |hop: &Hop| !matches!(hop.gateway, None | Some(Gateway::Each(_)));
            ensure!(
                route.hops.iter().all(several),
                "several ways are possible with `via NODES on NET` only"
            );
        }
        if route.table.is_some() {
            let net = route.hops[0].net;
            let same = route.hops.iter().all(|hop| hop.net == net);
            ensure!(same, "all ways in a table are on one net");
        }
        if let Some((role, _)) = route.each() {
            let nets = route.to.iter().all(|to| matches!(to, Destination::Net(_)));
            ensure!(nets, "`via each {}` leads to nets only", role.name());
        }
        Ok(route)
    }

    fn destination(&mut self) -> Result<Destination> {
        Ok(match self.word("a destination")? {
            "default" => Destination::Default,
            "net" => Destination::Net(self.net()?),
            "vips" => Destination::Vips,
            "sources" => Destination::Sources,
            prefix if prefix.contains('/') => Destination::Prefix(prefix.parse()?),
            other => {
                bail!(
                    "unknown destination `{other}`: not default, net N, vips, sources or a prefix"
                )
            }
        })
    }

    fn hop(&mut self) -> Result<Hop> {
        let gateway = if self.take("via") { Some(self.gateway()?) } else { None };
        self.expect("on")?;
        Ok(Hop { gateway, net: self.net()? })
    }

    fn gateway(&mut self) -> Result<Gateway> {
        if self.take("each") {
            let word = self.word("a role")?;
            return Ok(Gateway::Each(role(word).with_context(|| no_role(word))?));
        }
        let word = self.word("a gateway")?;
        if let Some(role) = role(word) {
            return Ok(Gateway::Role(role));
        }
        let mut nodes = Vec::new();
        for part in word.split(',') {
            let node = node(part)?;
            ensure!(!nodes.contains(&node), "gateway {} is named twice", node.number());
            nodes.push(node);
        }
        Ok(Gateway::Nodes(nodes))
    }

    fn table(&mut self) -> Result<Table> {
        let word = self.word("the table's number")?;
        let number = word.parse().ok().filter(|number| (1..=0x7fff).contains(number));
        // The kernel's own tables.
        let number = number.filter(|number| !(253..=255).contains(number));
        let number = number
            .with_context(|| format!("table `{word}`: not a number from 1 to 32767 but 253-255"))?;
        self.expect("for")?;
        let mut table = Table { number, oif: false, from: false };
        loop {
            match self.word("`oif` or `from`")? {
                "oif" => table.oif = true,
                "from" => table.from = true,
                other => bail!("`{other}` instead of `oif` or `from`"),
            }
            if !self.take("and") {
                return Ok(table);
            }
        }
    }

    fn condition(&mut self) -> Result<Condition> {
        let word = self.word("a variable")?;
        let (variable, value) = match word.split_once('=') {
            Some((variable, value)) => (variable, Some(value.to_owned())),
            None => (word, None),
        };
        check_variable(variable)?;
        Ok(Condition { variable: variable.to_owned(), value })
    }

    fn size(mut self) -> Result<SizeRange> {
        let nodes = self.count("nodes", Role::Server)?;
        let routers = self.count("routers", Role::Router)?;
        let testers = self.count("testers", Role::Tester)?;
        self.end()?;
        Ok(SizeRange { nodes, routers, testers })
    }

    fn count(&mut self, word: &str, role: Role) -> Result<Count> {
        self.expect(word)?;
        let limit = role.limit();
        let number = |text: &str| {
            let number = text.parse().ok().filter(|number| *number <= limit);
            number.with_context(|| format!("{word} `{text}`: not a number from 0 to {limit}"))
        };
        let default = number(self.word("a number")?)?;
        if self.take("fixed") {
            return Ok(Count::new(default, default, default));
        }
        if !self.take("of") {
            // Without routers there would be no way, unless the file says that there is none.
            let min = if role == Role::Router { default.min(1) } else { 0 };
            return Ok(Count::new(default, min, limit));
        }
        let range = self.word("a range")?;
        let (min, max) = range.split_once('-').with_context(|| {
            format!("{word} {default} of `{range}`: not a range such as 1-{limit}")
        })?;
        let count = Count::new(default, number(min)?, number(max)?);
        ensure!(count.includes(default), "{word} {default} is not within {range}");
        Ok(count)
    }

    fn net_name(mut self) -> Result<(NetId, String)> {
        let net = self.net()?;
        let name = self.word("a name")?;
        ensure!(is_name(name), "`{name}`: {NAME_RULE}");
        self.end()?;
        Ok((net, name.to_owned()))
    }

    fn who(&mut self) -> Result<Who> {
        let word = self.word("a statement")?;
        if word == "all" {
            return Ok(Who::All);
        }
        if let Some(role) = role(word) {
            return Ok(Who::Role(role));
        }
        ensure!(
            word.starts_with(|letter: char| letter.is_ascii_digit()),
            "unknown word `{word}`: a line begins with about, size, net, all, vm, router, tester or \
             numbers of nodes"
        );
        word.split(',').map(node_range).collect::<Result<_>>().map(Who::Numbers)
    }

    fn variable(&mut self) -> Result<String> {
        let word = self.word("a variable")?;
        check_variable(word)?;
        Ok(word.to_owned())
    }

    /// One or more, as many as there are.
    fn nets(&mut self) -> Result<Vec<NetId>> {
        let mut nets = vec![self.net()?];
        while self.peek().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
            nets.push(self.net()?);
        }
        Ok(nets)
    }

    /// The same without the net that belongs to nobody's test.
    fn test_nets(&mut self) -> Result<Vec<NetId>> {
        let nets = self.nets()?;
        no_maintenance(&nets)?;
        Ok(nets)
    }

    fn net(&mut self) -> Result<NetId> {
        let word = self.word("the number of a net")?;
        let number = word.parse().ok().with_context(|| {
            format!("`{word}` instead of the number of a net: not a number from 0 to 255")
        })?;
        Ok(NetId(number))
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        self.words.next().with_context(|| format!("{what} is missing at the end of the line"))
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.words.peek().copied()
    }

    fn take(&mut self, word: &str) -> bool {
        self.words.next_if_eq(&word).is_some()
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let word = self.word(&format!("`{expected}`"))?;
        ensure!(word == expected, "`{word}` instead of `{expected}`");
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.peek().map_or(Ok(()), |word| bail!("unknown word `{word}` after the statement"))
    }
}

const NAME_RULE: &str = "a name is of up to 15 letters a-z, digits and `-`, a letter first";

fn is_name(word: &str) -> bool {
    word.len() <= NAME_LIMIT
        && word.starts_with(|letter: char| letter.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Whether a shell can have a variable of this name.
pub fn check_variable(name: &str) -> Result<()> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    ensure!(first && rest, "`{name}` is not the name of a variable");
    Ok(())
}

pub fn mtu(word: &str) -> Result<u16> {
    let mtu = word.parse().ok().filter(|mtu| *mtu >= LEAST_MTU);
    mtu.with_context(|| format!("MTU `{word}`: not a number from {LEAST_MTU} to 65535"))
}

fn no_maintenance(nets: &[NetId]) -> Result<()> {
    ensure!(!nets.contains(&NetId(0)), "net 0 is for maintenance: it stays as it is");
    Ok(())
}

fn role(word: &str) -> Option<Role> {
    [Role::Server, Role::Router, Role::Tester].into_iter().find(|role| role.name() == word)
}

fn no_role(word: &str) -> String {
    format!("`{word}` is not a role: vm, router or tester")
}

fn node(word: &str) -> Result<NodeId> {
    let number = word.parse().ok().and_then(NodeId::new);
    number.with_context(|| format!("`{word}` is not the number of a node, from 1 to 240"))
}

fn node_range(text: &str) -> Result<RangeInclusive<u8>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (node(first)?, node(last)?);
    ensure!(first <= last, "`{text}`: the first number is the larger one");
    Ok(first.number()..=last.number())
}

#[cfg(test)]
mod tests;
