//! What becomes of figures: tables, a file, pictures.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::machine::Machine;
use super::plot;
use super::results::{CaseResults, Results};
use super::session::Session;
use super::table::{self, Format};

/// Where results go.
#[derive(Debug, Args)]
pub struct Output {
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

impl Output {
    /// Hours may be behind us when the figures are there; better to know now.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let folders = [parent(self.json.as_deref()), self.plot_dir.as_deref()];
        for folder in folders.into_iter().flatten() {
            fs::create_dir_all(folder).with_context(|| format!("write to {}", folder.display()))?;
        }
        Ok(())
    }

    /// Measures these cases one after the other, and shows what came of them.
    pub fn collect<C>(
        &self,
        session: &impl Session,
        effort: impl fmt::Display,
        cases: &[C],
        mut measure: impl FnMut(&C) -> anyhow::Result<CaseResults>,
    ) -> anyhow::Result<()> {
        let machine = Machine::look(session.signals())?;
        if let Some(warning) = machine.warning() {
            session.progress(&format!("warning: {warning}"));
        }
        let conditions = format!("{}; {effort}", machine.description());
        let mut results = Results { conditions, cases: Vec::new() };
        for case in cases {
            results.cases.push(measure(case)?);
            // After each case: an interrupted run is not lost.
            if let Some(path) = &self.json {
                let text = serde_json::to_string_pretty(&results).context("write JSON")?;
                fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
            }
        }
        session.progress("done");
        show(&results, self.markdown, self.plot_dir.as_deref())
    }
}

/// Prints and draws results.
pub fn show(results: &Results, markdown: bool, plot_dir: Option<&Path>) -> anyhow::Result<()> {
    table::print(results, if markdown { Format::Markdown } else { Format::Text });
    plot_dir.map_or(Ok(()), |folder| plot::draw(results, folder))
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
