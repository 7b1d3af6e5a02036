//! The agent in a machine: runs commands and moves files for clients outside.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::channel::Channel;
use super::protocol::{self, HELLO, Kind, PORT};
use crate::enter::{NOT_FOUND, NOT_RUN, code};
use crate::rootfs::SEARCH_PATH;

/// What a command printed is waited for so long after its end: somebody else may have the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Serves until the machine ends.
pub fn run() -> Result<ExitCode> {
    let port = find_port().context("find the serial port to the outside")?;
    let what = || format!("open {}", port.display());
    let mut out = File::options().read(true).write(true).open(&port).with_context(what)?;
    let input = out.try_clone().with_context(what)?;
    out.write_all(HELLO).context("say hello")?;
    Channel::new(out).serve(input, |stream| {
        thread::spawn(move || {
            if let Err(error) = serve(&stream) {
                eprintln!("ovl: {error:#}");
            }
        });
    })?;
    bail!("the serial port to the outside was closed")
}

fn find_port() -> Result<PathBuf> {
    let ports = "/sys/class/virtio-ports";
    for entry in fs::read_dir(ports).with_context(|| format!("read {ports}"))? {
        let entry = entry.with_context(|| format!("read {ports}"))?;
        // Ports without a name have no such file.
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("none is called {PORT}")
}

/// One end of a stream that several threads write to.
#[derive(Clone)]
struct Client(Arc<Mutex<UnixStream>>);

impl Client {
    fn say(&self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        protocol::write(&*stream, kind, bytes)
    }
}

/// One request.
fn serve(stream: &UnixStream) -> Result<()> {
    let mut input = BufReader::new(stream.try_clone().context("open stream again")?);
    let client = Client(Arc::new(Mutex::new(stream.try_clone().context("open stream again")?)));
    let mut terminal = None;
    // A client that is gone again wanted nothing.
    while let Some((kind, bytes)) = protocol::read(&mut input)? {
        match kind {
            Kind::Terminal => terminal = Some(Terminal::parse(&bytes)?),
            Kind::Run => {
                run_command(&client, input, &bytes, terminal)?;
                break;
            }
            Kind::Read => {
                read_file(&client, path(&bytes))?;
                break;
            }
            Kind::Write => {
                client.say(Kind::Begun, &[])?;
                match write_file(&mut input, path(&bytes)) {
                    Ok(()) => client.say(Kind::Ended, &[0])?,
                    Err(error) => client.say(Kind::Failed, error.to_string().as_bytes())?,
                }
                break;
            }
            _ => bail!("a client began with {kind:?}"),
        }
    }
    // The client may have closed it already.
    let _ = stream.shutdown(Shutdown::Both);
    Ok(())
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn read_file(client: &Client, path: &Path) -> io::Result<()> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return client.say(Kind::Absent, &[]);
        }
        Err(error) => return client.say(Kind::Failed, error.to_string().as_bytes()),
    };
    match pass(&mut file, client, Kind::Output) {
        Ok(()) => client.say(Kind::Ended, &[0]),
        Err(error) => client.say(Kind::Failed, error.to_string().as_bytes()),
    }
}

/// A file is there whole or not at all; its folder is made if it is not there.
fn write_file(input: &mut impl Read, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut content = Vec::new();
    loop {
        match protocol::read(&mut *input)? {
            Some((Kind::Input, bytes)) => content.extend(bytes),
            Some((Kind::InputEnd, _)) => return fs::write(path, content),
            _ => return Err(io::Error::other("the client is gone")),
        }
    }
}

/// Passes all that can be read on.
fn pass(from: &mut impl Read, client: &Client, kind: Kind) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => client.say(kind, &buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The terminal that a client sits at.
struct Terminal {
    size: Winsize,
    kind: String,
}

impl Terminal {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut words = text.splitn(3, ' ');
        let mut number = || words.next().and_then(|word| word.parse().ok()).context("odd terminal");
        let (ws_row, ws_col) = (number()?, number()?);
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(Self { size, kind: words.next().unwrap_or("dumb").to_owned() })
    }
}

/// A command that was started, and the ends of its pipes or terminal.
struct Started {
    child: Child,
    input: Box<dyn Write + Send>,
    outputs: Vec<(Kind, Box<dyn Read + Send>)>,
}

fn run_command(
    client: &Client,
    input: impl Read + Send + 'static,
    words: &[u8],
    terminal: Option<Terminal>,
) -> Result<()> {
    let words: Vec<OsString> =
        words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    client.say(Kind::Begun, &[])?;
    let started = match terminal {
        Some(terminal) => start_on(&words, &terminal),
        None => start(&words),
    };
    let Started { mut child, input: pipe, outputs } = match started {
        Ok(started) => started,
        Err(error) => {
            let missing = error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::NotFound);
            let name = words.first().map(|word| word.display().to_string()).unwrap_or_default();
            client.say(Kind::Errors, format!("ovl: run {name}: {error:#}\n").as_bytes())?;
            client.say(Kind::Ended, &[if missing { NOT_FOUND } else { NOT_RUN }])?;
            return Ok(());
        }
    };
    let (done, all_done) = mpsc::channel();
    let count = outputs.len();
    for (kind, output) in outputs {
        pass_in_thread(client.clone(), kind, output, done.clone());
    }
    let ended = Arc::new(Mutex::new(false));
    let (id, watched) = (i32::try_from(child.id())?, ended.clone());
    thread::spawn(move || obey(input, pipe, Pid::from_raw(id), &watched));
    let status = child.wait().context("wait for command");
    *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    for _ in 0..count {
        if all_done.recv_timeout(LAST_WORDS).is_err() {
            break;
        }
    }
    // A client that is gone does not want to know.
    let _ = client.say(Kind::Ended, &[code(status?)]);
    Ok(())
}

fn pass_in_thread(client: Client, kind: Kind, mut output: Box<dyn Read + Send>, done: Sender<()>) {
    thread::spawn(move || {
        // A terminal without users is an error; a client that is gone has ended the command.
        let _ = pass(&mut output, &client, kind);
        // After its last words nobody waits any more.
        let _ = done.send(());
    });
}

fn command(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SEARCH_PATH).env("HOME", "/root").current_dir("/");
    command
}

fn start(words: &[OsString]) -> Result<Started> {
    let (program, rest) = words.split_first().context("no command")?;
    let mut command = command(program);
    command.args(rest).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let input = Box::new(child.stdin.take().context("take standard input")?);
    let output = Box::new(child.stdout.take().context("take standard output")?);
    let errors = Box::new(child.stderr.take().context("take standard error")?);
    Ok(Started { child, input, outputs: vec![(Kind::Output, output), (Kind::Errors, errors)] })
}

fn start_on(words: &[OsString], terminal: &Terminal) -> Result<Started> {
    let pty = openpty(Some(&terminal.size), None).context("make a terminal")?;
    let end = |fd: &OwnedFd| fd.try_clone().context("open terminal again");
    let mut command = command(OsStr::new("setsid"));
    command.arg("--ctty").args(words).env("TERM", &terminal.kind);
    command.stdin(end(&pty.slave)?).stdout(end(&pty.slave)?).stderr(end(&pty.slave)?);
    let child = command.spawn()?;
    let (input, output) = (File::from(end(&pty.master)?), File::from(pty.master));
    Ok(Started { child, input: Box::new(input), outputs: vec![(Kind::Output, Box::new(output))] })
}

/// Does with a command what its client wants; one that nobody wants any more is killed.
fn obey(mut client: impl Read, pipe: Box<dyn Write + Send>, command: Pid, ended: &Mutex<bool>) {
    let mut pipe = Some(pipe);
    let pass_on = |signal: Signal| {
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !*ended {
            // It may just have ended by itself.
            let _ = kill(command, signal);
        }
    };
    loop {
        match protocol::read(&mut client) {
            Ok(Some((Kind::Input, bytes))) => {
                // A command need not read all.
                if pipe.as_mut().is_some_and(|pipe| pipe.write_all(&bytes).is_err()) {
                    pipe = None;
                }
            }
            Ok(Some((Kind::InputEnd, _))) => pipe = None,
            Ok(Some((Kind::Signal, number))) => {
                let number = number.first().copied().map(i32::from);
                if let Some(signal) = number.and_then(|number| Signal::try_from(number).ok()) {
                    pass_on(signal);
                }
            }
            _ => return pass_on(Signal::SIGKILL),
        }
    }
}
