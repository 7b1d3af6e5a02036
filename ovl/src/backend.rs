//! What the nodes of a cluster are made of, and how that is asked for.

use std::ffi::OsString;
use std::path::{self, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::vm::{Hardware, USUAL_MEMORY};

/// What nodes are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Backend {
    #[default]
    Namespaces,
    Machines(Hardware),
}

impl Backend {
    /// As it is asked for.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Namespaces => "ns",
            Self::Machines(_) => "vm",
        }
    }
}

/// What nodes are to be.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct BackendArgs {
    /// What nodes are: namespaces, or virtual machines with a kernel of their own
    #[arg(long, value_enum, default_value_t)]
    backend: BackendName,
    /// With vm: a kernel [default: Debian's cloud kernel, downloaded once]
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// With vm: the folder of that kernel's modules, with its version as name
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// With vm: memory of each node in MB [default: 128]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u16).range(64..))]
    memory: Option<u16>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq)]
enum BackendName {
    #[default]
    Ns,
    Vm,
}

impl BackendArgs {
    pub fn wanted(&self) -> Result<Backend> {
        let Self { backend, kernel, modules, memory } = self;
        if *backend == BackendName::Ns {
            if kernel.is_some() || memory.is_some() {
                bail!("--kernel, --modules and --memory are for --backend vm");
            }
            return Ok(Backend::Namespaces);
        }
        let absolute = |path: &Option<PathBuf>| {
            path.as_ref().map(path::absolute).transpose().context("find a kernel")
        };
        Ok(Backend::Machines(Hardware {
            kernel: absolute(kernel)?,
            modules: absolute(modules)?,
            memory: memory.unwrap_or(USUAL_MEMORY),
        }))
    }

    pub fn is_vm(&self) -> bool {
        self.backend == BackendName::Vm
    }

    /// The same as words of a command line.
    pub fn words(&self) -> Vec<OsString> {
        if self.backend == BackendName::Ns {
            return Vec::new();
        }
        let mut words: Vec<OsString> = vec!["--backend".into(), "vm".into()];
        for (option, path) in [("--kernel", &self.kernel), ("--modules", &self.modules)] {
            words.extend(path.iter().flat_map(|path| [option.into(), path.clone().into()]));
        }
        if let Some(memory) = self.memory {
            words.extend(["--memory".into(), memory.to_string().into()]);
        }
        words
    }
}
