//! What `sctpt ctraffic` reports.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::check;

pub struct Report(Value);

impl Report {
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map(Self).with_context(|| format!("read report: {text:?}"))
    }

    pub fn number(&self, key: &str) -> Result<u64> {
        self.0[key].as_u64().with_context(|| format!("read report: no number {key}"))
    }

    /// What the clients spoke SCTP with.
    pub fn stack(&self) -> Option<&str> {
        self.0["stack"].as_str()
    }

    fn associations(&self) -> Result<impl Iterator<Item = Association<'_>>> {
        let list = self.0["associations"].as_array().context("read report: no associations")?;
        Ok(list.iter().map(Association))
    }

    /// Every message came back once and as it was sent, on associations that lasted.
    pub fn check_whole(&self, clients: u64) -> Result<()> {
        let (sent, received) = (self.number("sent")?, self.number("received")?);
        // What a busy machine does not send in time is no loss.
        let must_be_none =
            ["lost", "duplicates", "corrupted", "lostAssociations", "failedConnects"];
        let mut wrong = Vec::new();
        for key in must_be_none.into_iter().chain(["unconnected", "moves"]) {
            let number = self.number(key)?;
            if number > 0 {
                wrong.push(format!("{key} {number}"));
            }
        }
        check(
            sent > 0 && sent == received && wrong.is_empty() && self.number("connects")? == clients,
            format!("as many messages received as sent, on {clients} associations that last"),
            format!("sent {sent}, received {received}, {wrong:?}\n{}", self.short()),
        )
    }

    /// The associations of each server; each of them has met one server alone.
    pub fn servers(&self) -> Result<BTreeMap<String, u64>> {
        let mut servers = BTreeMap::new();
        for association in self.associations()? {
            let names = association.servers();
            let [name] = &names[..] else {
                check(false, "one server for an association", association.0)?;
                continue;
            };
            *servers.entry(name.clone()).or_default() += 1;
        }
        Ok(servers)
    }

    /// Every association has these addresses of the server, and both paths are active.
    pub fn check_paths(&self, vips: &[&str]) -> Result<()> {
        for association in self.associations()? {
            let paths = association.paths();
            let wanted = vips.iter().map(|vip| ((*vip).to_owned(), "active".to_owned()));
            check(
                paths == wanted.collect(),
                format!("paths to {vips:?}, all of them active"),
                association.0,
            )?;
        }
        Ok(())
    }

    /// The server of each source port.
    pub fn server_of_port(&self) -> Result<BTreeMap<u16, String>> {
        self.by_port(|_| true)
    }

    /// The same of associations that ended before the run did.
    pub fn ended(&self) -> Result<BTreeMap<u16, String>> {
        self.by_port(|end| end != "lasted")
    }

    /// Those that were there at the end.
    pub fn lasting(&self) -> Result<BTreeMap<u16, String>> {
        self.by_port(|end| end == "lasted")
    }

    fn by_port(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<u16, String>> {
        self.associations()?
            .filter(|one| wanted(one.0["end"].as_str().unwrap_or_default()))
            .map(|association| {
                let port = association.port().context("read report: no local address")?;
                let name = association.servers().into_iter().next();
                Ok((port, name.unwrap_or_default()))
            })
            .collect()
    }

    /// All but the single associations.
    pub fn short(&self) -> String {
        let mut report = self.0.clone();
        if let Some(object) = report.as_object_mut() {
            for key in ["associations", "buckets"] {
                object.remove(key);
            }
        }
        report.to_string()
    }
}

struct Association<'a>(&'a Value);

impl Association<'_> {
    fn servers(&self) -> Vec<String> {
        let servers = self.0["servers"].as_object();
        servers.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    fn paths(&self) -> BTreeSet<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let paths = self.0["paths"].as_array();
        paths
            .into_iter()
            .flatten()
            .map(|path| (text(&path["address"]), text(&path["state"])))
            .collect()
    }

    fn port(&self) -> Option<u16> {
        let address = self.0["local"].as_array()?.first()?.as_str()?;
        address.rsplit([':', ',']).next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_association_is_read() {
        let report = Report::parse(
            r#"{"associations": [{"end": "lasted", "servers": {"vm-001": 7}, "local": ["10.0.0.9:5000"],
            "paths": [{"address": "10.0.0.1", "state": "active"}]}]}"#,
        )
        .unwrap();
        assert_eq!(report.servers().unwrap(), BTreeMap::from([("vm-001".to_owned(), 1)]));
        assert_eq!(report.server_of_port().unwrap()[&5000], "vm-001");
        assert!(report.check_paths(&["10.0.0.1"]).is_ok());
        assert!(report.check_paths(&["10.0.0.1", "1000::81"]).is_err());
        assert!(report.ended().unwrap().is_empty());
        assert!(report.number("sent").is_err());
    }
}
