//! `ovl topology`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::file::Topology;
use super::layout::Given;
use super::plan::{Size, Variables};
use super::{DEFAULT, draw, folders, names};
use crate::address::NodeId;
use crate::cli::TopologyShowArgs;

/// Lists all topologies; those that cannot be used with the reason.
pub fn list() {
    let names = names(&folders());
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) + 2;
    for name in names {
        match Topology::find(&name) {
            Ok(topology) => {
                let default = if name == DEFAULT { " (default)" } else { "" };
                println!("{name:width$}{}{default}", topology.about);
            }
            Err(error) => println!("{name:width$}BROKEN: {error:#}"),
        }
    }
}

pub fn show(args: &TopologyShowArgs) -> Result<()> {
    let topology = Topology::find(&args.name)?;
    let size = Size::from(&args.size);
    let variables = variables(&args.variables)?;
    let extra: Vec<NodeId> = args.extra.iter().map(|extra| node(*extra)).collect::<Result<_>>()?;
    let plan = topology.plan(&size, &extra, &variables)?;
    if let Some(number) = args.node {
        let id = node(number)?;
        let node = plan.node(id).with_context(|| format!("show {id}: not in this cluster"))?;
        for file in &node.files {
            println!("# {}\n{}", file.path, file.content);
        }
    } else if args.json {
        println!("{:#}", plan.to_json());
    } else {
        let layout =
            topology.layout(&topology.nodes(&size, &extra)?, Given::Variables(&variables))?;
        print!("{}", draw::text(&topology, &layout));
    }
    Ok(())
}

fn node(number: u8) -> Result<NodeId> {
    NodeId::new(number).with_context(|| format!("node {number}: numbers are 1 to 240"))
}

fn variables(words: &[String]) -> Result<Variables> {
    let pair = |word: &String| {
        let (name, value) = word
            .split_once('=')
            .with_context(|| format!("set variable `{word}`: not of the form NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect::<Result<BTreeMap<_, _>>>()
}
