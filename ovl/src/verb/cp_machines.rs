//! `ovl cp` where nodes are machines: a stream of `tar` leads from one side to the other.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::cli::{CpArgs, Place};
use crate::holder::{self, OWN_EXE};
use crate::state::Folder;

/// Sends a file, or a folder with all that is in it, under a name of its own. A link is followed.
const SEND: &str = r#"path=$(readlink -f -- "$1")
[ -e "$path" ] || { echo "$1: no such file or folder" >&2; exit 1; }
exec tar -C "$(dirname -- "$path")" --transform 's,^[^/]*,it,S' -cf - -- "$(basename -- "$path")""#;

/// Takes it where it is to be: in a folder that is there under its old name, else under the new one.
const RECEIVE: &str = r#"set -eu
target=$1
[ ! -d "$target" ] || target=${target%/}/$2
scratch=$(mktemp -d -- "$(dirname -- "$target")/.copy-XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT
tar -C "$scratch" --warning=no-timestamp -xpf -
if [ -d "$target" ] && [ -d "$scratch/it" ]; then
    cp -a -- "$scratch/it/." "$target"
elif [ -d "$target" ]; then
    echo "$target: a folder is there" >&2
    exit 1
else
    mv -f -- "$scratch/it" "$target"
fi"#;

pub fn run(args: &CpArgs, folder: &Folder) -> Result<ExitCode> {
    let name = args.from.path.file_name();
    let name =
        name.with_context(|| format!("copy {}: it has no name", args.from.path.display()))?;
    let prepare = |place: &Place, script: &str| {
        let mut command = shell(place, folder);
        command.args(["-c", script, "sh"]).arg(&place.path);
        command
    };
    let mut receiver = prepare(&args.to, RECEIVE);
    receiver.arg(name).stdin(Stdio::piped());
    let mut sender = prepare(&args.from, SEND);
    // What runs on this machine must be started before this process goes where nodes are seen.
    let mut receiver_there = None;
    if args.to.node.is_none() {
        receiver_there = Some(receiver.spawn().context("start sh")?);
    }
    let mut sender_there = None;
    if args.from.node.is_none() {
        sender.stdin(Stdio::null()).stdout(Stdio::piped());
        sender_there = Some(sender.spawn().context("start sh")?);
    }
    holder::enter(folder)?;
    let (sent, received) = if let Some(mut receiving) = receiver_there {
        let input = receiving.stdin.take().context("take standard input")?;
        let sent = sender.stdin(Stdio::null()).stdout(input).status();
        // The other side's input is open as long as this is there.
        drop(sender);
        (sent, receiving.wait())
    } else {
        let mut sending = match sender_there {
            Some(sending) => sending,
            None => sender.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("copy")?,
        };
        receiver.stdin(sending.stdout.take().context("take standard output")?);
        let received = receiver.status();
        drop(receiver);
        (sending.wait(), received)
    };
    let (sent, received) = (sent.context("copy")?, received.context("copy")?);
    if !sent.success() || !received.success() {
        bail!(
            "copy {}: {}",
            args.from.path.display(),
            if sent.success() { received } else { sent }
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A shell on a node or on this machine.
fn shell(place: &Place, folder: &Folder) -> Command {
    let Some(id) = place.node else { return Command::new("sh") };
    let mut command = Command::new(OWN_EXE);
    command.arg("enter-machine").arg(folder.work()).arg(id.to_string()).args(["--", "sh"]);
    command
}
