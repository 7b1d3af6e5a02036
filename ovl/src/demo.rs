//! The demo.
use crate::cli::DemoArgs;
use anyhow::Result;
use std::process::ExitCode;

pub fn run(_args: &DemoArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
