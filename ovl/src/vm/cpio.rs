//! Archives for the initial file system of a kernel: cpio in its "newc" form, one after the other in
//! a file, of which later ones win.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const FOLDER: u32 = 0o04_0000;
const FILE: u32 = 0o10_0000;
const LINK: u32 = 0o12_0000;
const DEVICE: u32 = 0o02_0000;

/// What marks the end of an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// An archive that is being written. Everything belongs to root.
pub struct Archive<W> {
    out: W,
    written: usize,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, written: 0, entries: 0 }
    }

    /// A folder must come before what is in it.
    pub fn folder(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path.as_bytes(), FOLDER | mode, (0, 0), &[])
    }

    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path.as_bytes(), FILE | mode, (0, 0), content)
    }

    /// A device of characters.
    pub fn device(&mut self, path: &str, numbers: (u32, u32)) -> io::Result<()> {
        self.entry(path.as_bytes(), DEVICE | 0o600, numbers, &[])
    }

    /// All that is in a folder, below another name, which must be there.
    pub fn tree(&mut self, from: &Path, into: &str) -> io::Result<()> {
        let mut entries = fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let metadata = entry.path().symlink_metadata()?;
            let mode = metadata.permissions().mode() & 0o7777;
            let mut name = into.as_bytes().to_vec();
            name.push(b'/');
            name.extend(entry.file_name().as_bytes());
            if metadata.is_dir() {
                self.entry(&name, FOLDER | mode, (0, 0), &[])?;
                // Names are text nearly always, and others cannot be said in a kernel's language.
                let name = String::from_utf8(name).map_err(io::Error::other)?;
                self.tree(&entry.path(), &name)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(entry.path())?;
                self.entry(&name, LINK | 0o777, (0, 0), target.as_os_str().as_bytes())?;
            } else {
                self.entry(&name, FILE | mode, (0, 0), &fs::read(entry.path())?)?;
            }
        }
        Ok(())
    }

    pub fn end(mut self) -> io::Result<W> {
        self.entries = 0;
        self.entry(TRAILER, 0, (0, 0), &[])?;
        // The next archive begins where nothing is left over.
        self.pad(512)?;
        Ok(self.out)
    }

    fn entry(
        &mut self,
        name: &[u8],
        mode: u32,
        device: (u32, u32),
        content: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        let links = 1;
        // Number, mode, owner, group, links, time, size, device, what device it is, length of the name.
        let fields =
            [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut head = b"070701".to_vec();
        for field in fields {
            head.extend(format!("{field:08x}").bytes());
        }
        head.extend(name);
        head.push(0);
        self.put(&head)?;
        self.pad(4)?;
        self.put(content)?;
        self.pad(4)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self, to: usize) -> io::Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        self.put(&vec![0; missing])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_program_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), "text").unwrap();
        std::os::unix::fs::symlink("b/file", tree.join("a/link")).unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.folder("in", 0o755).unwrap();
        archive.file("in/run", 0o755, b"odd").unwrap();
        archive.tree(&tree, "in").unwrap();
        let bytes = archive.end().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-idm"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(cpio.wait().unwrap().success());
        let seen = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!((seen("in/a/link").as_str(), seen("in/run").as_str()), ("text", "odd"));
        let mode = fs::metadata(folder.path().join("in/run")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
