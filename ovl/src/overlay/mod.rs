//! Overlays: what is laid over the machine's files in every node of a cluster.
//!
//! An overlay is a folder with files (`default/`), a program that makes them (`tar`), or both; or it
//! is a tar file. All overlays of a cluster go into one folder, a later one over an earlier one, and
//! the nodes have that folder above the machine's root.

mod archive;
mod find;
mod layer;
#[cfg(test)]
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use archive::Maker;
use find::{Folders, Kind, Overlay};
use layer::Layer;

/// The longest that an overlay's `tar`, or unpacking what it wrote, may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The root that nodes have below their overlays.
const MACHINE: &str = "/";

/// An overlay that has been laid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub name: String,
    pub path: PathBuf,
    /// How many files and links of it were laid; later overlays may have replaced some.
    pub files: usize,
}

/// An overlay that can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// The first line of its README.
    pub about: String,
    pub path: PathBuf,
}

/// Lays overlays into the folder `into` in the order of their names, each once. All names are looked
/// up before the first is laid.
pub fn unpack(
    names: &[String],
    variables: &BTreeMap<String, String>,
    bin_dir: &Path,
    into: &Path,
) -> Result<Vec<Applied>> {
    let layer = Layer::new(into, Path::new(MACHINE))?;
    let scratch = into.parent().unwrap_or(into);
    let maker = Maker { variables, bin_dir, scratch, limit: LIMIT };
    lay_all(&Folders::usual()?, names, &maker, &layer)
}

/// The overlays in the user's folders and the project's own. Of equal names the first is listed: it
/// is the one that is taken.
pub fn list() -> Result<Vec<Listed>> {
    Folders::usual()?.list()
}

/// Writes the list for people: name and purpose.
pub fn write_list(out: &mut impl Write) -> Result<()> {
    let overlays = list()?;
    let width = overlays.iter().map(|overlay| overlay.name.len()).max().unwrap_or(0);
    for Listed { name, about, .. } in &overlays {
        writeln!(out, "{name:width$}  {about}").context("write list of overlays")?;
    }
    Ok(())
}

fn lay_all(
    folders: &Folders,
    names: &[String],
    maker: &Maker,
    layer: &Layer,
) -> Result<Vec<Applied>> {
    let found = names.iter().map(|name| folders.find(name)).collect::<Result<Vec<_>>>()?;
    let mut seen = BTreeSet::new();
    found
        .into_iter()
        .filter(|overlay| seen.insert(overlay.path.clone()))
        .map(|overlay| {
            let files = lay(&overlay, maker, layer)
                .with_context(|| format!("lay overlay {}", overlay.name))?;
            Ok(Applied { name: overlay.name, path: overlay.path, files })
        })
        .collect()
}

fn lay(overlay: &Overlay, maker: &Maker, layer: &Layer) -> Result<usize> {
    if overlay.kind == Kind::Archive {
        return lay_archive(&overlay.path, maker, layer);
    }
    let mut files = 0;
    let tree = overlay.tree();
    if tree.is_dir() {
        files += layer.lay(&tree)?;
    }
    let program = overlay.program();
    if program.is_file() {
        let made = maker.make(&program)?;
        files += lay_archive(made.path(), maker, layer)?;
    }
    Ok(files)
}

fn lay_archive(archive: &Path, maker: &Maker, layer: &Layer) -> Result<usize> {
    layer.lay(maker.extract(archive)?.path())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A folder with overlays in `overlays/` and a node's layer in `layer/`.
    struct Bench {
        dir: TempDir,
        variables: BTreeMap<String, String>,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("overlays")).unwrap();
            fs::create_dir(dir.path().join("machine")).unwrap();
            Self { dir, variables: BTreeMap::new() }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn file(&self, path: &str, content: &str) {
            let path = self.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        /// An overlay's `tar` with this script.
        fn program(&self, overlay: &str, script: &str) {
            let path = format!("overlays/{overlay}/tar");
            self.file(&path, &format!("#!/bin/sh\n{script}\n"));
            fs::set_permissions(self.path(&path), PermissionsExt::from_mode(0o755)).unwrap();
        }

        /// Runs `tar` to make an archive in this folder.
        fn tar(&self, words: &str) {
            let status = Command::new("tar")
                .args(words.split(' '))
                .current_dir(self.dir.path())
                .status()
                .unwrap();
            assert!(status.success());
        }

        fn lay_within(&self, names: &[&str], limit: Duration) -> Result<Vec<Applied>> {
            let folders = Folders::of([self.path("overlays")]);
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let (scratch, bin_dir) = (self.dir.path(), Path::new("/bins"));
            let maker = Maker { variables: &self.variables, bin_dir, scratch, limit };
            let layer = Layer::new(&self.path("layer"), &self.path("machine"))?;
            lay_all(&folders, &names, &maker, &layer)
        }

        fn lay(&self, names: &[&str]) -> Result<Vec<Applied>> {
            self.lay_within(names, Duration::from_secs(20))
        }

        fn failure(&self, names: &[&str]) -> String {
            format!("{:#}", self.lay(names).unwrap_err())
        }

        fn laid(&self, path: &str) -> String {
            fs::read_to_string(self.path("layer").join(path)).unwrap()
        }

        fn is_laid(&self, path: &str) -> bool {
            self.path("layer").join(path).symlink_metadata().is_ok()
        }
    }

    fn names(applied: &[Applied]) -> Vec<&str> {
        applied.iter().map(|overlay| overlay.name.as_str()).collect()
    }

    #[test]
    fn later_overlays_win() {
        let bench = Bench::new();
        for name in ["a", "b"] {
            bench.file(&format!("overlays/{name}/default/etc/both"), name);
            bench.file(&format!("overlays/{name}/default/etc/{name}"), name);
        }
        let applied = bench.lay(&["b", "a"]).unwrap();
        assert_eq!(names(&applied), ["b", "a"]);
        assert_eq!((applied[0].files, &applied[0].path), (2, &bench.path("overlays/b")));
        assert_eq!(bench.laid("etc/both"), "a");
        assert_eq!(bench.laid("etc/b"), "b");
    }

    #[test]
    fn a_repeated_overlay_is_laid_once_at_its_first_place() {
        let bench = Bench::new();
        bench.file("overlays/a/default/x", "a");
        bench.file("overlays/b/default/x", "b");
        let path = bench.path("overlays/a");
        let applied = bench.lay(&["a", "b", "a", path.to_str().unwrap()]).unwrap();
        assert_eq!(names(&applied), ["a", "b"]);
        assert_eq!(bench.laid("x"), "b");
    }

    #[test]
    fn default_comes_before_tar() {
        let bench = Bench::new();
        bench.file("overlays/a/default/x", "default");
        bench.file("overlays/a/default/y", "default");
        bench.program("a", "cd $(mktemp -d); echo made >x; tar -cf $1 x; rm -r $PWD");
        let applied = bench.lay(&["a"]).unwrap();
        assert_eq!(applied[0].files, 3);
        assert_eq!((bench.laid("x").as_str(), bench.laid("y").as_str()), ("made\n", "default"));
    }

    #[test]
    fn tar_has_variables_and_its_own_folder() {
        let mut bench = Bench::new();
        bench.variables.insert("COLOUR".to_owned(), "dark red".to_owned());
        bench.file("overlays/a/note", "beside");
        bench.program(
            "a",
            "set -u; d=$(mktemp -d); cat note >$d/x; echo \":$COLOUR:$SETUP:$OVL_BIN_DIR\" >>$d/x
             tar -C $d -cf - x; rm -r $d",
        );
        bench.lay(&["a"]).unwrap();
        assert_eq!(bench.laid("x"), "beside:dark red::/bins\n");
        bench.variables.insert("SETUP".to_owned(), "small,fast".to_owned());
        bench.lay(&["a"]).unwrap();
        assert_eq!(bench.laid("x"), "beside:dark red:small,fast:/bins\n");
    }

    #[test]
    fn archives_are_known_by_their_content() {
        for (option, name) in
            [("-cf", "a.tar"), ("-czf", "a.tgz"), ("-cJf", "a.tar.xz"), ("-czf", "odd.tar")]
        {
            let bench = Bench::new();
            bench.file("tree/etc/x", name);
            bench.tar(&format!("{option} {name} -C tree etc"));
            let path = bench.path(name);
            let applied = bench.lay(&[path.to_str().unwrap()]).unwrap();
            let short = name.split('.').next().unwrap();
            assert_eq!((applied[0].name.as_str(), applied[0].files), (short, 1), "{name}");
            assert_eq!(bench.laid("etc/x"), name);
        }
    }

    #[test]
    fn modes_are_kept_and_links_are_laid() {
        let bench = Bench::new();
        bench.file("tree/bin/run", "x");
        fs::set_permissions(bench.path("tree/bin/run"), PermissionsExt::from_mode(0o4750)).unwrap();
        std::os::unix::fs::symlink("/bin/run", bench.path("tree/bin/link")).unwrap();
        bench.tar("-cf a.tar -C tree bin");
        bench.lay(&[bench.path("a.tar").to_str().unwrap()]).unwrap();
        let mode = fs::metadata(bench.path("layer/bin/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o4750);
        assert_eq!(fs::read_link(bench.path("layer/bin/link")).unwrap(), Path::new("/bin/run"));
    }

    /// Archives that try to write beside the folder they are unpacked in.
    #[test]
    fn archives_cannot_escape() {
        let bench = Bench::new();
        bench.file("outside/victim", "safe");
        bench.file("deep/down/evil", "evil");
        let outside = bench.path("outside");
        let outside = outside.to_str().unwrap();
        // The name is changed while packing: up, and out by an absolute path.
        bench.tar("-cf up.tar -P --transform s,.*,../outside/victim, deep/down/evil");
        bench.tar(&format!("-cf root.tar -P --transform s,.*,{outside}/victim, deep/down/evil"));
        // A link that leads out, then a file behind it.
        for (archive, target) in [("link.tar", outside), ("dots.tar", "../../outside")] {
            std::os::unix::fs::symlink(target, bench.path("way")).unwrap();
            bench.tar(&format!("-cf {archive} way"));
            bench.tar(&format!("-rf {archive} -P --transform s,.*,way/victim, deep/down/evil"));
            fs::remove_file(bench.path("way")).unwrap();
        }
        // A second name of a file outside.
        fs::hard_link(bench.path("deep/down/evil"), bench.path("deep/down/same")).unwrap();
        bench.tar("-cf second.tar -P --transform s,.*,../outside/victim,RSh deep");
        for (name, reason) in [
            ("up", "../outside/victim: Member name contains '..'"),
            ("link", "way/victim: Cannot open"),
            ("dots", "way/victim: Cannot open"),
            ("second", "Cannot hard link to 'outside/victim'"),
        ] {
            let path = bench.path(&format!("{name}.tar"));
            let failure = bench.failure(&[path.to_str().unwrap()]);
            let start = format!("lay overlay {name}: unpack: exit status: 2: tar: ");
            assert!(failure.starts_with(&start) && failure.contains(reason), "{failure}");
            assert!(!failure.contains('\n'), "{failure}");
        }
        // An absolute name is taken as one below the folder.
        bench.lay(&[bench.path("root.tar").to_str().unwrap()]).unwrap();
        assert_eq!(bench.laid(&format!("{outside}/victim")[1..]), "evil");
        assert_eq!(fs::read_to_string(bench.path("outside/victim")).unwrap(), "safe");
    }

    #[test]
    fn links_of_one_overlay_do_not_lead_another_out() {
        let bench = Bench::new();
        bench.file("outside/victim", "safe");
        fs::create_dir_all(bench.path("overlays/a/default")).unwrap();
        for (link, target) in
            [("way", bench.path("outside")), ("dots", PathBuf::from("../../outside"))]
        {
            let link = bench.path("overlays/a/default").join(link);
            std::os::unix::fs::symlink(target, link).unwrap();
        }
        bench.file("overlays/b/default/way/victim", "evil");
        bench.file("overlays/b/default/dots/victim", "evil");
        bench.lay(&["a", "b"]).unwrap();
        assert_eq!(fs::read_to_string(bench.path("outside/victim")).unwrap(), "safe");
        assert_eq!(bench.laid("way/victim"), "evil");
        assert_eq!(bench.laid("dots/victim"), "evil");
    }

    #[test]
    fn devices_and_pipes_are_refused() {
        let bench = Bench::new();
        fs::create_dir_all(bench.path("overlays/a/default/run")).unwrap();
        let pipe = bench.path("overlays/a/default/run/pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(
            bench.failure(&["a"]),
            "lay overlay a: lay /run/pipe: neither a file nor a folder nor a link"
        );
    }

    #[test]
    fn a_failing_tar_is_told_with_its_last_words() {
        let bench = Bench::new();
        bench.program("a", "for n in 1 2 3 4 5; do echo line $n >&2; done; exit 3");
        bench.program("b", "exit 1");
        bench.program("c", "kill -9 $$");
        assert_eq!(
            bench.failure(&["a"]),
            "lay overlay a: run its tar: exit status: 3: line 3; line 4; line 5"
        );
        assert_eq!(bench.failure(&["b"]), "lay overlay b: run its tar: exit status: 1: no message");
        assert!(bench.failure(&["c"]).starts_with("lay overlay c: run its tar: "));
    }

    #[test]
    fn a_tar_that_prints_something_else_is_refused() {
        let bench = Bench::new();
        bench.program("nothing", "true");
        bench.program("words", "echo packing; tar -C / -cf - etc/hostname 2>&1");
        bench.program("text", "head -c 2048 /dev/zero | tr '\\0' x");
        bench.program("cut", "tar -C / -cf - etc/passwd | head -c 1024");
        assert_eq!(
            bench.failure(&["nothing"]),
            "lay overlay nothing: run its tar: it wrote no tar to standard output"
        );
        assert_eq!(
            bench.failure(&["words"]),
            "lay overlay words: run its tar: standard output holds something else than a tar"
        );
        let text = bench.failure(&["text"]);
        assert!(text.contains("unpack: exit status: 2: tar: This does not look like"), "{text}");
        assert!(bench.failure(&["cut"]).contains("tar: Unexpected EOF in archive"));
        assert!(!bench.failure(&["text"]).contains('\n'));
    }

    #[test]
    fn a_tar_that_hangs_is_ended() {
        let bench = Bench::new();
        let started = bench.path("started");
        bench.program("a", &format!("echo $$ >{}; trap '' TERM; sleep 60", started.display()));
        let failure =
            format!("{:#}", bench.lay_within(&["a"], Duration::from_secs(1)).unwrap_err());
        assert_eq!(failure, "lay overlay a: run its tar: not done within 1 s, ended");
        let id = fs::read_to_string(started).unwrap();
        let state = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
        // Gone, or killed and not yet collected by whoever is process 1 here.
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
    }

    #[test]
    fn a_file_that_is_no_archive_is_refused() {
        let bench = Bench::new();
        bench.file("notes.tar", "just words");
        bench.file("empty.tar", "");
        let fail = |name| bench.failure(&[bench.path(name).to_str().unwrap()]);
        assert!(fail("notes.tar").starts_with("lay overlay notes: unpack: exit status: 2: tar: "));
        assert_eq!(fail("empty.tar"), "lay overlay empty: unpack: the file is empty");
    }

    #[test]
    fn nothing_is_laid_when_a_name_is_unknown() {
        let bench = Bench::new();
        bench.file("overlays/a/default/x", "a");
        bench.failure(&["a", "nosuch"]);
        assert!(!bench.is_laid("x"));
    }

    #[test]
    fn nothing_is_left_beside_the_layer() {
        let bench = Bench::new();
        bench.program("a", "d=$(mktemp -d); touch $d/x; tar -C $d -cf - x; rm -r $d");
        bench.lay(&["a"]).unwrap();
        let mut left: Vec<_> = fs::read_dir(bench.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["layer", "machine", "overlays"]);
    }
}
