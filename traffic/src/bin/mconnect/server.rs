//! The server: tells everyone its host name.

use traffic::server::Service;

/// The name of this host.
pub struct HostName(pub String);

impl Service for HostName {
    type Stream = ();

    fn greet(&self, answer: &mut Vec<u8>) {
        answer.extend_from_slice(self.0.as_bytes());
    }

    /// What is asked does not matter.
    fn hear(&self, (): &mut (), _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(self.0.as_bytes());
    }

    fn answer_datagram(&self, _: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(self.0.as_bytes());
    }
}
