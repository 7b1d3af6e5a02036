//! Finding overlays: by name in folders, or by path.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Listed;

/// A list of folders with the user's overlays, separated by colons.
const VARIABLE: &str = "OVL_OVERLAYS";

/// What a folder must have to be an overlay.
const TREE: &str = "default";
const PROGRAM: &str = "tar";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub name: String,
    /// Absolute and without links: the same overlay has the same path whatever it was called.
    pub path: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Folder,
    Archive,
}

/// The folders in which names are looked up, in this order.
pub struct Folders(Vec<PathBuf>);

impl Overlay {
    /// The files that are laid as they are.
    pub fn tree(&self) -> PathBuf {
        self.path.join(TREE)
    }

    /// The program that makes more.
    pub fn program(&self) -> PathBuf {
        self.path.join(PROGRAM)
    }

    fn at(path: &Path) -> Result<Self> {
        let odd = || format!("open overlay {}", path.display());
        let path = path.canonicalize().with_context(odd)?;
        let file_name = path.file_name().with_context(odd)?.to_string_lossy().into_owned();
        if !path.is_dir() {
            let name = file_name.split('.').find(|part| !part.is_empty()).unwrap_or(&file_name);
            return Ok(Self { name: name.to_owned(), path, kind: Kind::Archive });
        }
        let overlay = Self { name: file_name, path, kind: Kind::Folder };
        let program = fs::metadata(overlay.program()).ok().filter(fs::Metadata::is_file);
        if program.as_ref().is_some_and(|program| program.permissions().mode() & 0o111 == 0) {
            bail!("open overlay {}: its {PROGRAM} is not executable", overlay.path.display());
        }
        if program.is_none() && !overlay.tree().is_dir() {
            bail!(
                "open overlay {}: has neither a folder {TREE} nor a program {PROGRAM}",
                overlay.path.display()
            );
        }
        Ok(overlay)
    }
}

impl Folders {
    /// The user's folders, then the project's own.
    pub fn usual() -> Result<Self> {
        let listed = env::var_os(VARIABLE).unwrap_or_default();
        let mut folders: Vec<PathBuf> =
            env::split_paths(&listed).filter(|folder| !folder.as_os_str().is_empty()).collect();
        if let Some(missing) = folders.iter().find(|folder| !folder.is_dir()) {
            bail!("open folder {} of {VARIABLE}: no such folder", missing.display());
        }
        folders.push(own_folder()?);
        Ok(Self(folders))
    }

    #[cfg(test)]
    pub fn of(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(folders.into_iter().collect())
    }

    /// `name` is one of an overlay in these folders, or a path.
    pub fn find(&self, name: &str) -> Result<Overlay> {
        let path = Path::new(name);
        if name.contains('/') || name == "." || name == ".." {
            return Overlay::at(path);
        }
        let folder = self.0.iter().find(|folder| folder.join(name).is_dir());
        if let (Some(folder), false) = (folder, name.is_empty()) {
            return Overlay::at(&folder.join(name));
        }
        if path.exists() {
            return Overlay::at(path);
        }
        let folders: Vec<String> =
            self.0.iter().map(|folder| folder.display().to_string()).collect();
        let known: Vec<String> = self.list()?.into_iter().map(|overlay| overlay.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("find overlay {name:?}: not in {} (there: {known})", folders.join(" or "))
    }

    /// All that has a name here, sorted by it.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut found = BTreeMap::new();
        for folder in &self.0 {
            let read = || format!("read folder {}", folder.display());
            for entry in fs::read_dir(folder).with_context(read)? {
                let path = entry.with_context(read)?.path();
                // What is no overlay is told when it is asked for by name.
                if let (true, Ok(overlay)) = (path.is_dir(), Overlay::at(&path)) {
                    let name = path
                        .file_name()
                        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                    let about = about(&overlay.path, &name);
                    let listed = Listed { name: name.clone(), about, path: overlay.path };
                    found.entry(name).or_insert(listed);
                }
            }
        }
        Ok(found.into_values().collect())
    }
}

/// What the first line of the README says, without the name that it may begin with.
fn about(overlay: &Path, name: &str) -> String {
    let readme = fs::read_to_string(overlay.join("README.md")).unwrap_or_default();
    let line = readme.lines().next().unwrap_or_default().trim_start_matches('#').trim();
    let rest = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
    rest.unwrap_or(line).trim().to_owned()
}

/// Beside an installed executable, else in the source tree that it was built from.
fn own_folder() -> Result<PathBuf> {
    let executable = env::current_exe().context("find ovl's own executable")?;
    let installed =
        executable.parent().and_then(Path::parent).map(|dir| dir.join("share/ovl/overlays"));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays");
    match installed.filter(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None if built.is_dir() => Ok(built),
        None => bail!(
            "find the project's overlays: neither ../share/ovl/overlays beside {} nor {}",
            executable.display(),
            built.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "# about: this one\n\nMore.\n").unwrap();
        }
        dir
    }

    fn failure(result: Result<Overlay>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn the_first_folder_wins() {
        let first = folder_with(&["a/default/x"]);
        let second = folder_with(&["a/default/x", "b/default/x"]);
        let folders = Folders::of([first.path().to_owned(), second.path().to_owned()]);
        assert_eq!(folders.find("a").unwrap().path, first.path().join("a"));
        assert_eq!(folders.find("b").unwrap().path, second.path().join("b"));
        let listed = folders.list().unwrap();
        assert_eq!(listed.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(listed[0].path, first.path().join("a"));
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let dir = folder_with(&["mine/default/x", "box.v1.tar.gz", "link/default/x"]);
        let folders = Folders::of([]);
        let find = |name: &str| folders.find(dir.path().join(name).to_str().unwrap()).unwrap();
        assert_eq!((find("mine").name.as_str(), find("mine").kind), ("mine", Kind::Folder));
        assert_eq!(find("mine/../mine/").path, dir.path().join("mine"));
        assert_eq!(
            (find("box.v1.tar.gz").name.as_str(), find("box.v1.tar.gz").kind),
            ("box", Kind::Archive)
        );
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let dir = folder_with(&["a/default/x", "text/README.md", "plain/tar"]);
        let folders = Folders::of([dir.path().to_owned()]);
        let place = dir.path().display();
        assert_eq!(
            failure(folders.find("nosuch")),
            format!("find overlay \"nosuch\": not in {place} (there: a)")
        );
        assert!(failure(folders.find("")).starts_with("find overlay \"\": not in "));
        assert_eq!(
            failure(folders.find("./no/such")),
            "open overlay ./no/such: No such file or directory (os error 2)"
        );
        assert_eq!(
            failure(folders.find("text")),
            format!("open overlay {place}/text: has neither a folder default nor a program tar")
        );
        assert_eq!(
            failure(folders.find("plain")),
            format!("open overlay {place}/plain: its tar is not executable")
        );
    }

    #[test]
    fn the_readme_tells_what_it_is_about() {
        let dir = folder_with(&["about/default/x", "about/README.md", "bare/default/x"]);
        let listed = Folders::of([dir.path().to_owned()]).list().unwrap();
        let abouts: Vec<&str> = listed.iter().map(|l| l.about.as_str()).collect();
        assert_eq!(abouts, ["this one", ""]);
    }

    #[test]
    fn the_projects_own_are_there_and_say_what_they_are() {
        let listed = Folders(vec![own_folder().unwrap()]).list().unwrap();
        let names: Vec<&str> = listed.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["base", "evil", "lb", "mserver", "network-topology", "sctp", "squeeze"]);
        assert!(listed.iter().all(|overlay| overlay.about.len() > 10), "{listed:?}");
    }
}
