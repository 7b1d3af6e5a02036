//! The keeper of a machine: process 1 of a process namespace on the side of the cluster, which stands
//! for the node. It runs qemu and leads clients to the agent inside. When either of both ends the
//! kernel ends the other.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::channel::Channel;
use super::client::Line;
use super::protocol::HELLO;
use super::qemu::Settings;
use crate::cli::KeeperArgs;
use crate::holder::name_this_process;
use crate::init::{self, FAILURE, GO, STARTED, THERE};
use crate::namespace::in_network;
use crate::net::switch_file;
use crate::rootfs::BIN_DIR;

/// How long a machine may take until its agent says hello.
const BOOT: Duration = Duration::from_secs(240);

pub fn run(args: &KeeperArgs) -> Result<ExitCode> {
    let line = Line::new(&args.work, &args.host);
    match start(args, &line) {
        Ok(mut qemu) => {
            let null = File::options().read(true).write(true).open("/dev/null");
            let null = null.context("open /dev/null")?;
            dup2_stdin(&null).context("let standard input go")?;
            dup2_stdout(&null).context("let standard output go")?;
            dup2_stderr(&null).context("let standard error go")?;
            // Ends the process, and with it whoever is inside.
            qemu.wait().context("wait for qemu")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => init::tell_result(Err(error)),
    }
}

fn start(args: &KeeperArgs, line: &Line) -> Result<Child> {
    name_this_process()?;
    let settings = Settings::read(line.folder())?;
    let listener = line.listen()?;
    let (own, guest) = UnixStream::pair().context("make a serial line")?;
    let mut qemu = start_qemu(args, line, &settings, guest)?;
    let channel = open_channel(&mut qemu, own, line)?;
    let clients = channel.clone();
    thread::spawn(move || accept(&listener, &clients));
    init::tell(THERE)?;
    let mut order = String::new();
    io::stdin().lock().read_line(&mut order).context("wait to go on")?;
    if order != GO {
        bail!("the one that started this node is gone");
    }
    run_scripts(line)?;
    init::tell(STARTED)?;
    Ok(qemu)
}

fn start_qemu(
    args: &KeeperArgs,
    line: &Line,
    settings: &Settings,
    guest: UnixStream,
) -> Result<Child> {
    let console = line.console();
    let log = File::options().create(true).append(true).open(&console);
    let log = log.with_context(|| format!("open {}", console.display()))?;
    let guest = OwnedFd::from(guest);
    fcntl(&guest, FcntlArg::F_SETFD(FdFlag::empty())).context("hand the serial line down")?;
    let mut command = Command::new(super::qemu::PROGRAM);
    command.args(settings.words(&args.host, guest.as_raw_fd(), &console));
    command.stdin(Stdio::null()).stdout(log.try_clone().context("open console again")?).stderr(log);
    in_network(&switch_file(&args.work), || {
        command.spawn().with_context(|| format!("start {} (run make deps)", super::qemu::PROGRAM))
    })
}

/// Waits for the agent's hello.
fn open_channel(qemu: &mut Child, own: UnixStream, line: &Line) -> Result<Arc<Channel>> {
    let mut input = own.try_clone().context("open serial line again")?;
    let deadline = Instant::now() + BOOT;
    input.set_read_timeout(Some(Duration::from_millis(100))).context("limit waiting")?;
    let mut hello = [0; HELLO.len()];
    let mut heard = 0;
    while heard < hello.len() {
        match input.read(&mut hello[heard..]) {
            Ok(0) => return Err(ended(qemu, line)),
            Ok(count) => heard += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() >= deadline {
                    return Err(line.lost(&format!("did not boot within {} s", BOOT.as_secs())));
                }
            }
            Err(error) => return Err(error).context("listen for the agent"),
        }
    }
    if hello != *HELLO {
        bail!("listen for the agent: it said something else: {hello:?}");
    }
    input.set_read_timeout(None).context("wait without limit")?;
    let channel = Channel::new(own);
    let serving = channel.clone();
    // Ends with qemu; the agent opens no streams.
    thread::spawn(move || serving.serve(input, drop));
    Ok(channel)
}

fn ended(qemu: &mut Child, line: &Line) -> anyhow::Error {
    let status = qemu.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    line.lost(&format!("ended before it was up: qemu: {status}"))
}

fn accept(listener: &UnixListener, channel: &Arc<Channel>) {
    for client in listener.incoming().flatten() {
        // A client whose stream cannot be opened finds it closed.
        if let Err(error) = channel.open(client) {
            eprintln!("ovl: lead a client to the agent: {error}");
        }
    }
}

/// Lets the start-up scripts run; what the program inside says is what a node of namespaces says.
fn run_scripts(line: &Line) -> Result<()> {
    let said = line.output(&[&format!("{BIN_DIR}/ovl"), "start-up"])?;
    let failure: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix(FAILURE)).collect();
    if said.lines().any(|line| line == STARTED) {
        return Ok(());
    }
    if failure.is_empty() {
        bail!("run start-up scripts: no result: {said}");
    }
    bail!("{}", failure.join("\n"))
}
