//! Links Debian's libusrsctp statically, with some of its system calls led through this crate.
//!
//! The library has no hooks for what `user::hooks` must do, so the calls are renamed in a copy of the archive.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// System calls of the library that `user::hooks` answers.
const HOOKED: [&str; 5] = ["getifaddrs", "if_nametoindex", "recvmsg", "sendmsg", "setsockopt"];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CC");
    println!("cargo::rerun-if-env-changed=OBJCOPY");
    match link() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn link() -> Result<(), String> {
    let archive = find_archive()?;
    println!("cargo::rerun-if-changed={}", archive.display());
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?);
    let copy = folder.join("libusrsctp_hooked.a");
    let mut objcopy = Command::new(env::var_os("OBJCOPY").unwrap_or("objcopy".into()));
    for call in HOOKED {
        objcopy.arg(format!("--redefine-sym={call}=markway_sctp_{call}"));
    }
    let status = objcopy.arg(&archive).arg(&copy).status();
    match status {
        Ok(status) if status.success() && fs::exists(&copy).unwrap_or(false) => {}
        Ok(status) => return Err(format!("objcopy {}: {status}", archive.display())),
        Err(error) => return Err(format!("objcopy (Debian package binutils): {error}")),
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
    println!("cargo::rustc-link-lib=static=usrsctp_hooked");
    Ok(())
}

/// Where the C compiler would take the library from.
fn find_archive() -> Result<PathBuf, String> {
    let compiler = env::var_os("CC").unwrap_or("cc".into());
    let output = Command::new(&compiler)
        .arg("-print-file-name=libusrsctp.a")
        .output()
        .map_err(|error| format!("{}: {error}", Path::new(&compiler).display()))?;
    let name = String::from_utf8_lossy(&output.stdout);
    let path = Path::new(name.trim());
    // A compiler that does not find it answers with the bare name.
    if path.is_absolute() && path.exists() {
        return Ok(path.into());
    }
    Err("libusrsctp.a is missing: install libusrsctp-dev (make deps)".into())
}
