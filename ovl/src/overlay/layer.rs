//! The folder that lies over the machine's root, and how trees of files are laid into it.
//!
//! What counts is what a node will see: the folder with the machine's root below. A machine where
//! `/bin` is a link to `usr/bin` would lose all its programs if an overlay's `bin/` became a folder
//! over that link, so such a folder is laid where the link leads. Links are followed with the folder
//! as the root: none leads out of it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

/// As many links as the kernel follows in one path.
const LINKS: usize = 40;

pub struct Layer {
    into: PathBuf,
    below: PathBuf,
}

/// What a node sees at a path.
enum Seen {
    Folder,
    Link(PathBuf),
    Other,
}

impl Layer {
    /// `below` is what a node sees where there is nothing in `into`.
    pub fn new(into: &Path, below: &Path) -> Result<Self> {
        fs::create_dir_all(into).with_context(|| format!("make folder {}", into.display()))?;
        Ok(Self { into: into.to_owned(), below: below.to_owned() })
    }

    /// Lays all that is in the folder `tree`; returns how many files and links that were.
    pub fn lay(&self, tree: &Path) -> Result<usize> {
        self.lay_folder(tree, Path::new(""))
    }

    /// `to` is a path in the layer, relative and without links, as all that are called so here.
    fn lay_folder(&self, from: &Path, to: &Path) -> Result<usize> {
        let read = || format!("read {}", from.display());
        let mut entries = fs::read_dir(from)
            .with_context(read)?
            .collect::<io::Result<Vec<_>>>()
            .with_context(read)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut files = 0;
        for entry in entries {
            let (source, place) = (entry.path(), to.join(entry.file_name()));
            let lay = || format!("lay /{}", place.display());
            let metadata = entry.metadata().with_context(lay)?;
            if metadata.is_dir() {
                let folder = self.folder(&place, &metadata).with_context(lay)?;
                files += self.lay_folder(&source, &folder)?;
            } else {
                self.lay_file(&source, &metadata, &place).with_context(lay)?;
                files += 1;
            }
        }
        Ok(files)
    }

    fn lay_file(&self, source: &Path, metadata: &Metadata, place: &Path) -> Result<()> {
        let target = self.into.join(place);
        if metadata.is_symlink() {
            clear(&target)?;
            symlink(fs::read_link(source)?, &target)?;
        } else if metadata.is_file() {
            clear(&target)?;
            fs::copy(source, &target)?;
        } else {
            bail!("neither a file nor a folder nor a link");
        }
        Ok(())
    }

    /// Makes the folder where `place` leads, and returns where that is.
    fn folder(&self, place: &Path, like: &Metadata) -> Result<PathBuf> {
        let place = self.follow(place).unwrap_or_else(|| place.to_owned());
        let mut path = PathBuf::new();
        for name in &place {
            path.push(name);
            let target = self.into.join(&path);
            match target.symlink_metadata() {
                Ok(there) if there.is_dir() => continue,
                Ok(_) => fs::remove_file(&target)?,
                Err(_) => {}
            }
            fs::create_dir(&target)?;
            // A node sees the upper folder's mode and owner, so what the machine has there must not
            // change only because an overlay puts a file into it (/tmp, /root).
            match self.below.join(&path).symlink_metadata() {
                Ok(there) if there.is_dir() => {
                    chown(&target, Some(there.uid()), Some(there.gid()))?;
                    fs::set_permissions(&target, there.permissions())?;
                }
                _ => fs::set_permissions(&target, like.permissions())?,
            }
        }
        Ok(place)
    }

    /// The folder that a node finds at `place`, links followed; None if it finds none.
    fn follow(&self, place: &Path) -> Option<PathBuf> {
        let mut rest = names(place);
        rest.reverse();
        let (mut real, mut links) = (PathBuf::new(), 0);
        while let Some(name) = rest.pop() {
            if name == ".." {
                real.pop();
                continue;
            }
            real.push(name);
            match self.look(&real) {
                Seen::Folder => {}
                Seen::Other => return None,
                Seen::Link(_) if links == LINKS => return None,
                Seen::Link(target) => {
                    links += 1;
                    real.pop();
                    if target.is_absolute() {
                        real.clear();
                    }
                    rest.extend(names(&target).into_iter().rev());
                }
            }
        }
        Some(real)
    }

    fn look(&self, place: &Path) -> Seen {
        let seen = [&self.into, &self.below].into_iter().find_map(|root| {
            let path = root.join(place);
            path.symlink_metadata().ok().map(|metadata| (path, metadata))
        });
        match seen {
            Some((_, metadata)) if metadata.is_dir() => Seen::Folder,
            Some((path, metadata)) if metadata.is_symlink() => {
                fs::read_link(path).map_or(Seen::Other, Seen::Link)
            }
            _ => Seen::Other,
        }
    }
}

/// The parts of a path: names and `..`.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Removes whatever is there.
fn clear(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    /// A machine's root, a layer over it, and a tree to lay.
    struct Bench(TempDir);

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["machine", "layer", "tree"] {
                fs::create_dir(dir.path().join(name)).unwrap();
            }
            Self(dir)
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn folder(&self, path: &str) -> PathBuf {
            let path = self.path(path);
            fs::create_dir_all(&path).unwrap();
            path
        }

        fn file(&self, path: &str) {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
            fs::write(self.path(path), path).unwrap();
        }

        fn link(&self, path: &str, target: &str) {
            fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
            symlink(target, self.path(path)).unwrap();
        }

        /// Lays the tree and empties it for the next.
        fn lay(&self) -> usize {
            let layer = Layer::new(&self.path("layer"), &self.path("machine")).unwrap();
            let files = layer.lay(&self.path("tree")).unwrap();
            fs::remove_dir_all(self.path("tree")).unwrap();
            self.folder("tree");
            files
        }

        fn is_real_folder(&self, path: &str) -> bool {
            self.path(path).symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
        }

        fn mode(&self, path: &str) -> u32 {
            fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn a_folder_over_a_link_of_the_machine_goes_where_it_leads() {
        for target in ["usr/bin", "/usr/bin", "/way/bin", "../../usr/./bin"] {
            let bench = Bench::new();
            bench.folder("machine/usr/bin");
            bench.link("machine/way", "usr");
            bench.link("machine/bin", target);
            bench.file("tree/bin/new");
            assert_eq!(bench.lay(), 1);
            assert!(bench.path("layer/usr/bin/new").is_file(), "{target}");
            assert!(bench.path("layer/bin").symlink_metadata().is_err(), "{target}");
        }
    }

    #[test]
    fn a_folder_replaces_a_link_that_leads_to_none() {
        for target in ["nowhere", "/file", "mtab", "/file/x"] {
            let bench = Bench::new();
            bench.file("machine/file");
            bench.link("machine/mtab", target);
            bench.file("tree/mtab/x");
            bench.lay();
            assert!(bench.path("layer/mtab/x").is_file(), "{target}");
        }
    }

    #[test]
    fn links_of_the_layer_hide_what_is_below() {
        let bench = Bench::new();
        bench.folder("machine/a");
        bench.folder("machine/b");
        bench.link("tree/a", "b");
        bench.lay();
        bench.file("tree/a/x");
        bench.lay();
        assert!(bench.path("layer/b/x").is_file());
        assert_eq!(fs::read_link(bench.path("layer/a")).unwrap(), Path::new("b"));
    }

    #[test]
    fn files_and_folders_replace_each_other() {
        let bench = Bench::new();
        bench.file("tree/a/inner/x");
        bench.file("tree/b");
        bench.link("tree/c", "nowhere");
        assert_eq!(bench.lay(), 3);
        bench.file("tree/a");
        bench.file("tree/b/x");
        bench.file("tree/c");
        assert_eq!(bench.lay(), 3);
        assert!(bench.path("layer/a").is_file());
        assert!(bench.is_real_folder("layer/b"));
        assert!(bench.path("layer/c").symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn a_file_replaces_a_link_and_not_what_it_leads_to() {
        let bench = Bench::new();
        bench.file("tree/kept");
        bench.link("tree/link", "kept");
        bench.lay();
        bench.file("tree/link");
        bench.lay();
        assert_eq!(fs::read_to_string(bench.path("layer/kept")).unwrap(), "tree/kept");
        assert_eq!(fs::read_to_string(bench.path("layer/link")).unwrap(), "tree/link");
    }

    #[test]
    fn folders_of_the_machine_keep_their_mode() {
        let bench = Bench::new();
        let set = |path: PathBuf, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode));
        set(bench.folder("machine/tmp"), 0o1777).unwrap();
        set(bench.folder("tree/tmp"), 0o755).unwrap();
        set(bench.folder("tree/tmp/new"), 0o700).unwrap();
        bench.lay();
        assert_eq!(bench.mode("layer/tmp"), 0o1777);
        assert_eq!(bench.mode("layer/tmp/new"), 0o700);
    }

    #[test]
    fn names_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let bench = Bench::new();
        let name = OsString::from_vec(vec![b'a', 0xff, b' ']);
        fs::write(bench.path("tree").join(&name), "").unwrap();
        assert_eq!(bench.lay(), 1);
        assert!(bench.path("layer").join(&name).is_file());
    }
}
