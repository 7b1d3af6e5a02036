//! A filter on system calls: what a load balancer at work has no use for is refused.
//!
//! Verdicts need CAP_NET_ADMIN as long as the process lives. Whoever took the process over could still
//! speak to netfilter on the queue's own socket, which a filter cannot tell from a verdict. But there
//! are no new sockets, no interface requests, no programs, and files are opened for reading only.

use std::io;

/// What the process may still call, beside opening files for reading. Everything else fails with
/// EPERM.
const ALLOWED: &[libc::c_long] = &[
    // Packets and verdicts.
    libc::SYS_recvmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    // Signals, inotify, waiting.
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    // A table made anew, the kernel's counters, the log.
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // Threads that wait and end, and a panic's way out.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Puts the filter in force for all threads of the process, for good.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub fn install() -> io::Result<()> {
    let mut program = program();
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the program is valid for reads of its length through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        thread if thread > 0 => Err(io::Error::other(format!("thread {thread} refused it"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// There is no list for this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub fn install() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Compares the number of the call with each of the list. The list is short, and there are two calls
/// a batch.
fn program() -> Vec<libc::sock_filter> {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const NUMBER_OFFSET: u32 = 0;
    const ARCHITECTURE_OFFSET: u32 = 4;
    const OPEN_FLAGS_OFFSET: u32 = 16 + 2 * 8; // the low half of the third argument
    const MASK: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
    const WRITING: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u32;
    const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![
        step(LOAD, ARCHITECTURE_OFFSET, 0, 0),
        step(JUMP_IF_EQUAL, ARCHITECTURE, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        step(LOAD, NUMBER_OFFSET, 0, 0),
    ];
    for number in ALLOWED.iter().filter_map(|number| u32::try_from(*number).ok()) {
        program.push(step(JUMP_IF_EQUAL, number, 0, 1));
        program.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    let open = u32::try_from(libc::SYS_openat).unwrap_or(u32::MAX);
    program.extend([
        step(JUMP_IF_EQUAL, open, 1, 0),
        step(RETURN, REFUSE, 0, 0),
        step(LOAD, OPEN_FLAGS_OFFSET, 0, 0),
        step(MASK, WRITING, 0, 0),
        step(JUMP_IF_EQUAL, libc::O_RDONLY as u32, 1, 0),
        step(RETURN, REFUSE, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]);
    program
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;
    use std::{env, fs, thread};

    /// The filter cannot be taken off, so it is tried in a process of its own: this test calls itself.
    #[test]
    fn new_sockets_and_programs_are_refused_and_files_are_read() {
        const VARIABLE: &str = "MARKWAY_TEST_UNDER_FILTER";
        let name = "syscall_filter::tests::new_sockets_and_programs_are_refused_and_files_are_read";
        if env::var_os(VARIABLE).is_none() {
            let status = Command::new(env::current_exe().unwrap())
                .args([name, "--exact", "--test-threads=1"])
                .env(VARIABLE, "1")
                .status()
                .unwrap();
            assert!(status.success());
            return;
        }
        let (ready, waiting) = std::sync::mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            waiting.recv().unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap_err().kind()
        });
        super::install().unwrap();
        ready.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), std::io::ErrorKind::PermissionDenied);
        assert!(Command::new("/bin/true").status().is_err());
        assert!(fs::write("/dev/null", "x").is_err());
        assert!(fs::read_to_string("/proc/self/status").unwrap().contains("Seccomp:\t2"));
    }
}
