//! Which cases are measured, with which programs, and what becomes of the figures: tables, a file,
//! pictures.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::machine::Machine;
use super::plot;
use super::results::{CaseResults, Results};
use super::session::Session;
use super::table::{self, Format};

/// What every benchmark takes.
#[derive(Debug, Args)]
pub struct Scope<C: ValueEnum + Send + Sync + 'static> {
    /// Only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<C>,
    #[command(flatten)]
    output: Output,
    /// Where the programs are that are measured [default: where this program is]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// Where results go.
#[derive(Debug, Args)]
struct Output {
    /// Write all figures to a file, which `bench report` reads
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a picture of each case to a folder
    #[arg(long, value_name = "DIR")]
    plot_dir: Option<PathBuf>,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
}

impl<C: ValueEnum + Send + Sync + 'static> Scope<C> {
    /// Where the programs are: where the user says, or where this one is.
    fn bin_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.bin_dir {
            return Ok(folder.clone());
        }
        let itself = std::env::current_exe().context("find this program")?;
        Ok(itself.parent().context("find this program's folder")?.into())
    }

    /// Measures the cases one after the other with what `prepare` makes of the programs' folder, and
    /// shows what came of them.
    pub fn measure<S: Session>(
        &self,
        effort: impl fmt::Display,
        prepare: impl FnOnce(PathBuf) -> anyhow::Result<S>,
        mut measure: impl FnMut(&S, &C) -> anyhow::Result<CaseResults>,
    ) -> anyhow::Result<()> {
        let Output { json, plot_dir, markdown } = &self.output;
        self.output.prepare()?;
        let session = prepare(self.bin_dir()?)?;
        let machine = Machine::look(session.signals())?;
        if let Some(warning) = machine.warning() {
            session.progress(&format!("warning: {warning}"));
        }
        let conditions = format!("{}; {effort}", machine.description());
        let mut results = Results { conditions, cases: Vec::new() };
        let cases = if self.only.is_empty() { C::value_variants() } else { &self.only };
        for case in cases {
            results.cases.push(measure(&session, case)?);
            // After each case: an interrupted run is not lost.
            if let Some(path) = json {
                let text = serde_json::to_string_pretty(&results).context("write JSON")?;
                fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
            }
        }
        session.progress("done");
        show(&results, *markdown, plot_dir.as_deref())
    }
}

impl Output {
    /// Hours may be behind us when the figures are there; better to know now.
    fn prepare(&self) -> anyhow::Result<()> {
        let folders = [parent(self.json.as_deref()), self.plot_dir.as_deref()];
        for folder in folders.into_iter().flatten() {
            fs::create_dir_all(folder).with_context(|| format!("write to {}", folder.display()))?;
        }
        Ok(())
    }
}

/// Prints and draws results.
pub fn show(results: &Results, markdown: bool, plot_dir: Option<&Path>) -> anyhow::Result<()> {
    table::print(results, if markdown { Format::Markdown } else { Format::Text });
    plot_dir.map_or(Ok(()), |folder| plot::draw(results, folder))
}

/// What a value is called on the command line.
pub fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().into()).unwrap_or_default()
}

fn parent(file: Option<&Path>) -> Option<&Path> {
    file?.parent().filter(|parent| !parent.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_this_folder_needs_no_other() {
        assert_eq!(parent(Some(Path::new("a.json"))), None);
        assert_eq!(parent(Some(Path::new("x/a.json"))), Some(Path::new("x")));
        assert_eq!(parent(None), None);
    }
}
