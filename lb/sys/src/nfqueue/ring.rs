//! Buffers for a batch of datagrams, and the one call that fills them.

use std::fmt;
use std::io;

use crate::netlink::Socket;

/// Buffers of one size and the kernel's description of them, made once.
pub(super) struct Ring {
    buffers: Box<[u8]>,
    buffer_len: usize,
    /// Where each buffer is. The headers point here, and here to the buffers; boxes do not move.
    _vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    /// How many of the buffers hold a datagram.
    filled: usize,
}

// SAFETY: the pointers in the vectors and headers lead into boxes that the ring owns.
unsafe impl Send for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} × {})", self.headers.len(), self.buffer_len)
    }
}

impl Ring {
    /// Bytes for each buffer beside it.
    pub const DESCRIPTION: usize = size_of::<libc::iovec>() + size_of::<libc::mmsghdr>();

    pub fn new(datagrams: usize, buffer_len: usize) -> Self {
        let mut buffers = vec![0; datagrams * buffer_len].into_boxed_slice();
        let mut vectors: Box<[libc::iovec]> = buffers
            .chunks_exact_mut(buffer_len)
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer_len })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: zeros are a valid mmsghdr: no name, no vectors, no control data.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Ring { buffers, buffer_len, _vectors: vectors, headers, filled: 0 }
    }

    /// Waits for a datagram as long as the socket's time-out allows and takes all that are there.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.filled = socket.receive_batch(&mut self.headers)?;
        Ok(())
    }

    pub fn holds_datagrams(&self) -> bool {
        self.filled > 0
    }

    /// The datagrams that were taken.
    pub fn drain(&mut self) -> impl Iterator<Item = &[u8]> {
        let lens = self.headers.iter().map(|header| header.msg_len as usize);
        self.buffers
            .chunks_exact(self.buffer_len)
            .zip(lens)
            .take(std::mem::take(&mut self.filled))
            .map(|(buffer, len)| &buffer[..len.min(buffer.len())])
    }
}
