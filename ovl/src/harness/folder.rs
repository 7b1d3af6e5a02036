//! Where the logs of tests are put, and what is known of those that failed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a test tells, and with it the mark of a folder that may be made anew.
pub const LOG: &str = "case.log";

/// The folder of all tests when none is named: below target where there is one.
pub fn default() -> PathBuf {
    let target = Path::new("target");
    if target.is_dir() { target.join("ovl-test") } else { PathBuf::from("ovl-test") }
}

/// Makes the folder of a test, empty but for its log, which it returns.
pub fn create(output: &Path, test: &str) -> Result<(PathBuf, fs::File)> {
    let folder = output.join(test);
    if folder.join(LOG).is_file() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    } else if folder.exists() {
        bail!("create {}: it exists and is not of an earlier test", folder.display());
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let folder =
        folder.canonicalize().with_context(|| format!("open folder {}", folder.display()))?;
    let log = folder.join(LOG);
    let file = fs::File::options().create(true).append(true).open(&log);
    let log = file.with_context(|| format!("create {}", log.display()))?;
    Ok((folder, log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_tests_are_made_anew() {
        let output = tempfile::tempdir().unwrap();
        let (folder, _log) = create(output.path(), "a").unwrap();
        fs::write(folder.join("old"), "").unwrap();
        let (folder, _log) = create(output.path(), "a").unwrap();
        assert!(!folder.join("old").exists());

        fs::create_dir(output.path().join("b")).unwrap();
        fs::write(output.path().join("b/precious"), "").unwrap();
        let error = create(output.path(), "b").unwrap_err().to_string();
        assert!(error.ends_with("it exists and is not of an earlier test"), "{error}");
        assert!(output.path().join("b/precious").exists());
    }
}
