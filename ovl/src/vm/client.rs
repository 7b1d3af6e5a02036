//! The way into a node that is a machine: through its keeper to the agent inside.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::SigSet;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::protocol::{self, Kind};
use crate::enter::FORWARDED;

/// How long an agent may take to say that it has understood.
const ANSWER: Duration = Duration::from_secs(40);

/// How long nothing may come from a command before it is tried whether its node is well.
const SILENCE: Duration = Duration::from_secs(20);

/// The exit code of a command whose node was lost; no command that ran ends so.
const LOST: u8 = 255;

/// How many lines of a console are told: the last ones, or from where the kernel gave up.
const CONSOLE_LINES: usize = 12;
const PANIC: &str = "Kernel panic";

const SOCKET: &str = "agent";
pub const CONSOLE: &str = "console";

/// Where a machine's keeper has its files.
#[derive(Clone, Debug)]
pub struct Line {
    name: String,
    work: PathBuf,
    folder: PathBuf,
}

impl Line {
    pub fn new(work: &Path, name: &str) -> Self {
        let folder = work.join("machines").join(name);
        Self { name: name.to_owned(), work: work.to_owned(), folder }
    }

    pub fn work(&self) -> &Path {
        &self.work
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn console(&self) -> PathBuf {
        self.folder.join(CONSOLE)
    }

    /// Lets clients come.
    pub fn listen(&self) -> Result<UnixListener> {
        self.with_socket(|path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(path),
        })
        .with_context(|| format!("listen for clients of {}", self.name))
    }

    fn connect(&self) -> Result<UnixStream> {
        let connected = self.with_socket(|path| UnixStream::connect(path));
        connected.map_err(|_| self.lost("has ended"))
    }

    /// The path of a socket must be short, that of a cluster's folder may be long.
    fn with_socket<T>(&self, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        const LONGEST: usize = 107;
        let path = self.folder.join(SOCKET);
        if path.as_os_str().len() <= LONGEST {
            return work(&path);
        }
        let folder = File::open(&self.folder)?;
        work(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET))
    }

    /// Sends a request and waits until it is understood.
    fn ask(&self, requests: &[(Kind, &[u8])]) -> Result<UnixStream> {
        let stream = self.connect()?;
        for (kind, bytes) in requests {
            protocol::write(&stream, *kind, bytes).map_err(|_| self.lost("has ended"))?;
        }
        Ok(stream)
    }

    /// The next that the agent says, which must come soon.
    fn first_answer(&self, stream: &UnixStream) -> Result<(Kind, Vec<u8>)> {
        stream.set_read_timeout(Some(ANSWER)).context("limit the time of an answer")?;
        let answer = match protocol::read(stream) {
            Ok(Some(answer)) => answer,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(self.lost("does not answer"));
            }
            _ => return Err(self.lost("has ended")),
        };
        stream.set_read_timeout(None).context("take the limit away")?;
        Ok(answer)
    }

    /// The content of a file; None if it is not there.
    pub fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let what = || format!("read {} on {}", path.display(), self.name);
        let stream = self.ask(&[(Kind::Read, path.as_os_str().as_bytes())]).with_context(what)?;
        let mut content = Vec::new();
        loop {
            match self.first_answer(&stream).with_context(what)? {
                (Kind::Output, bytes) => content.extend(bytes),
                (Kind::Ended, _) => return Ok(Some(content)),
                (Kind::Absent, _) => return Ok(None),
                (_, reason) => bail!("{}: {}", what(), String::from_utf8_lossy(&reason)),
            }
        }
    }

    /// Writes a file; makes its folder if it is not there.
    pub fn write_file(&self, path: &Path, content: &[u8]) -> Result<()> {
        let what = || format!("write {} on {}", path.display(), self.name);
        let stream = self.ask(&[(Kind::Write, path.as_os_str().as_bytes())]).with_context(what)?;
        for chunk in content.chunks(protocol::LONGEST) {
            protocol::write(&stream, Kind::Input, chunk)
                .map_err(|_| self.lost("has ended"))
                .with_context(what)?;
        }
        protocol::write(&stream, Kind::InputEnd, &[])
            .map_err(|_| self.lost("has ended"))
            .with_context(what)?;
        loop {
            match self.first_answer(&stream).with_context(what)? {
                (Kind::Begun, _) => {}
                (Kind::Ended, _) => return Ok(()),
                (_, reason) => bail!("{}: {}", what(), String::from_utf8_lossy(&reason)),
            }
        }
    }

    /// What a command prints on standard output.
    pub fn output(&self, words: &[&str]) -> Result<String> {
        let stream = self.ask(&[(Kind::Run, words.join("\0").as_bytes())])?;
        protocol::write(&stream, Kind::InputEnd, &[]).map_err(|_| self.lost("has ended"))?;
        self.first_answer(&stream)?;
        let mut output = Vec::new();
        loop {
            match protocol::read(&stream).unwrap_or_default() {
                Some((Kind::Output, bytes)) => output.extend(bytes),
                Some((Kind::Ended, _)) => {
                    return Ok(String::from_utf8_lossy(&output).into_owned());
                }
                Some(_) => {}
                None => return Err(self.lost("has ended")),
            }
        }
    }

    /// Runs a command with this process' standard input, output and error, terminal and signals.
    pub fn run(&self, words: &[OsString]) -> Result<ExitCode> {
        let signals = SigSet::from_iter(FORWARDED);
        signals.thread_block().context("block signals")?;
        let line = words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>().join(&0);
        let terminal = Terminal::take()?;
        let mut requests = vec![(Kind::Run, line.as_slice())];
        if let Some(terminal) = &terminal {
            requests.insert(0, (Kind::Terminal, terminal.text.as_bytes()));
        }
        let ended = self.ask(&requests).and_then(|stream| self.pass_through(stream, &signals));
        drop(terminal);
        match ended {
            Ok(code) => Ok(ExitCode::from(code)),
            Err(error) => {
                eprintln!("ovl: run {}: {error:#}", words[0].display());
                Ok(ExitCode::from(LOST))
            }
        }
    }

    fn pass_through(&self, stream: UnixStream, signals: &SigSet) -> Result<u8> {
        let out = Arc::new(Mutex::new(stream.try_clone().context("open stream again")?));
        let (first, input) = (self.first_answer(&stream)?, out.clone());
        thread::spawn(move || pass_input(&input));
        let signals = *signals;
        // Ends with the process, as the other one does.
        thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                let number = u8::try_from(signal as i32).unwrap_or_default();
                let _ = say(&out, Kind::Signal, &[number]);
            }
        });
        let mut next = Some(first);
        while let Some((kind, bytes)) = next {
            match kind {
                Kind::Output => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&bytes).and_then(|()| stdout.flush()).context("print")?;
                }
                Kind::Errors => io::stderr().write_all(&bytes).context("print")?,
                Kind::Ended => return Ok(bytes.first().copied().unwrap_or(LOST)),
                Kind::Begun => {}
                _ => bail!("{}", String::from_utf8_lossy(&bytes)),
            }
            next = self.next(&stream)?;
        }
        Err(self.lost("has ended"))
    }

    /// The next that the agent says, for which a command may take as long as it likes, but not the node.
    fn next(&self, mut stream: &UnixStream) -> Result<Option<(Kind, Vec<u8>)>> {
        let mut first = [0];
        stream.set_read_timeout(Some(SILENCE)).context("limit the time of silence")?;
        loop {
            match stream.read(&mut first) {
                Ok(0) => return Ok(None),
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.read_file(Path::new("/proc/uptime"))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
        }
        stream.set_read_timeout(Some(ANSWER)).context("limit the time of an answer")?;
        // What is no frame any more is the end, too.
        Ok(protocol::read_after(first, stream).ok())
    }

    /// What is known of a node that cannot be reached.
    pub fn lost(&self, how: &str) -> anyhow::Error {
        anyhow::anyhow!("{} {how}{}", self.name, self.console_end())
    }

    /// The last lines of its console, for an error message.
    pub fn console_end(&self) -> String {
        let console = fs::read(self.console()).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> =
            console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return "; its console is empty".to_owned();
        }
        // Behind the words of a kernel that gave up there is a long list of where it was.
        let panic = lines.iter().rposition(|line| line.contains(PANIC));
        let first = panic.unwrap_or(lines.len().saturating_sub(CONSOLE_LINES));
        let shown = &lines[first..lines.len().min(first + CONSOLE_LINES)];
        format!("; the end of its console:\n  {}", shown.join("\n  "))
    }
}

fn say(out: &Mutex<UnixStream>, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let stream = out.lock().unwrap_or_else(PoisonError::into_inner);
    protocol::write(&*stream, kind, bytes)
}

fn pass_input(out: &Mutex<UnixStream>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let said = match io::stdin().read(&mut buffer) {
            Ok(0) => return drop(say(out, Kind::InputEnd, &[])),
            Ok(count) => say(out, Kind::Input, &buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(_) => return drop(say(out, Kind::InputEnd, &[])),
        };
        // The command has ended.
        if said.is_err() {
            return;
        }
    }
}

/// The terminal that this process sits at; what is typed goes as it is to the node until this is
/// dropped.
struct Terminal {
    before: Termios,
    text: String,
}

impl Terminal {
    /// None when standard input or output is something else.
    fn take() -> Result<Option<Self>> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
        let size = size.context("start stty (of coreutils)")?.stdout;
        let size = String::from_utf8_lossy(&size).trim().to_owned();
        let kind = env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        let before = tcgetattr(io::stdin()).context("look at the terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).context("prepare the terminal")?;
        Ok(Some(Self { before, text: format!("{size} {kind}") }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is no other way to tell it.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_told() {
        let work = tempfile::tempdir().unwrap();
        let line = Line::new(work.path(), "vm-201");
        assert_eq!(line.lost("has ended").to_string(), "vm-201 has ended; its console is empty");
        fs::create_dir_all(line.folder()).unwrap();
        let mut console: String = (0..100).map(|number| format!("{number}\r\n")).collect();
        fs::write(line.console(), &console).unwrap();
        let told = line.console_end();
        assert!(told.starts_with("; the end of its console:\n  88\n"), "{told}");
        assert!(told.ends_with("\n  99"), "{told}");
        console += "Kernel panic - not syncing: x\n";
        console += &"trace\n".repeat(40);
        fs::write(line.console(), &console).unwrap();
        let told = line.console_end();
        assert!(told.starts_with("; the end of its console:\n  Kernel panic"), "{told}");
        assert_eq!(told.lines().count(), 1 + CONSOLE_LINES);
    }

    #[test]
    fn sockets_are_found_below_long_paths() {
        let work = tempfile::tempdir().unwrap();
        let long = work.path().join("x".repeat(120));
        let line = Line::new(&long, "vm-201");
        fs::create_dir_all(line.folder()).unwrap();
        let listener = line.listen().unwrap();
        line.connect().unwrap();
        drop(listener);
        let error = line.connect().unwrap_err().to_string();
        assert!(error.starts_with("vm-201 has ended; "), "{error}");
    }
}
