//! SIGTERM and SIGINT as calls.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use traffic::process;

/// From now on both signals call `ended`, each time. To be called before any other thread is started, also by a
/// stack: a thread inherits which signals are held back.
pub fn on_end(mut ended: impl FnMut() + Send + 'static) -> io::Result<()> {
    let signals = process::termination_signals()?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.read_signal().is_ok() {
            ended();
        }
    })?;
    Ok(())
}

/// From now on both signals send this.
pub fn send_on_end<T: Copy + Send + 'static>(to: Sender<T>, what: T) -> io::Result<()> {
    on_end(move || {
        // Who is told has gone only if this program ends.
        let _ = to.send(what);
    })
}
