//! What `wasi_snapshot_preview1` is made of: each function, its type, and what
//! a guest here gets from it.
//!
//! The static checks read this list, and so does the linker; a function that
//! is not in it is refused by name.

use crate::limits::Wasi;

/// The module that guests import these functions from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// One function of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its type, as the static checks write types.
    pub ty: &'static str,
    /// What becomes of a call.
    pub(crate) role: Role,
}

/// What becomes of a call; those without a behaviour of their own answer that
/// there is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Args,
    ArgsSizes,
    ClockRes,
    ClockTime,
    Close,
    Environ,
    EnvironSizes,
    Exit,
    FdStat,
    FdStatFlags,
    FileStat,
    NoDirectory,
    NoFile,
    NoSocket,
    Poll,
    Raise,
    Random,
    Read,
    Seek,
    Tell,
    Write,
    Yield,
}

const fn function(name: &'static str, ty: &'static str, role: Role) -> Function {
    Function { name, ty, role }
}

/// All 46, by name.
pub(crate) static FUNCTIONS: [Function; 46] = [
    function("args_get", "(i32, i32) -> i32", Role::Args),
    function("args_sizes_get", "(i32, i32) -> i32", Role::ArgsSizes),
    function("clock_res_get", "(i32, i32) -> i32", Role::ClockRes),
    function("clock_time_get", "(i32, i64, i32) -> i32", Role::ClockTime),
    function("environ_get", "(i32, i32) -> i32", Role::Environ),
    function("environ_sizes_get", "(i32, i32) -> i32", Role::EnvironSizes),
    function("fd_advise", "(i32, i64, i64, i32) -> i32", Role::NoFile),
    function("fd_allocate", "(i32, i64, i64) -> i32", Role::NoFile),
    function("fd_close", "(i32) -> i32", Role::Close),
    function("fd_datasync", "(i32) -> i32", Role::NoFile),
    function("fd_fdstat_get", "(i32, i32) -> i32", Role::FdStat),
    function(
        "fd_fdstat_set_flags",
        "(i32, i32) -> i32",
        Role::FdStatFlags,
    ),
    function(
        "fd_fdstat_set_rights",
        "(i32, i64, i64) -> i32",
        Role::NoFile,
    ),
    function("fd_filestat_get", "(i32, i32) -> i32", Role::FileStat),
    function("fd_filestat_set_size", "(i32, i64) -> i32", Role::NoFile),
    function(
        "fd_filestat_set_times",
        "(i32, i64, i64, i32) -> i32",
        Role::NoFile,
    ),
    function("fd_pread", "(i32, i32, i32, i64, i32) -> i32", Role::NoFile),
    function(
        "fd_prestat_dir_name",
        "(i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function("fd_prestat_get", "(i32, i32) -> i32", Role::NoDirectory),
    function(
        "fd_pwrite",
        "(i32, i32, i32, i64, i32) -> i32",
        Role::NoFile,
    ),
    function("fd_read", "(i32, i32, i32, i32) -> i32", Role::Read),
    function(
        "fd_readdir",
        "(i32, i32, i32, i64, i32) -> i32",
        Role::NoDirectory,
    ),
    function("fd_renumber", "(i32, i32) -> i32", Role::NoFile),
    function("fd_seek", "(i32, i64, i32, i32) -> i32", Role::Seek),
    function("fd_sync", "(i32) -> i32", Role::NoFile),
    function("fd_tell", "(i32, i32) -> i32", Role::Tell),
    function("fd_write", "(i32, i32, i32, i32) -> i32", Role::Write),
    function(
        "path_create_directory",
        "(i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_filestat_get",
        "(i32, i32, i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_filestat_set_times",
        "(i32, i32, i32, i32, i64, i64, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_link",
        "(i32, i32, i32, i32, i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_open",
        "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_readlink",
        "(i32, i32, i32, i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_remove_directory",
        "(i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_rename",
        "(i32, i32, i32, i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_symlink",
        "(i32, i32, i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function(
        "path_unlink_file",
        "(i32, i32, i32) -> i32",
        Role::NoDirectory,
    ),
    function("poll_oneoff", "(i32, i32, i32, i32) -> i32", Role::Poll),
    function("proc_exit", "(i32)", Role::Exit),
    function("proc_raise", "(i32) -> i32", Role::Raise),
    function("random_get", "(i32, i32) -> i32", Role::Random),
    function("sched_yield", "() -> i32", Role::Yield),
    function("sock_accept", "(i32, i32, i32) -> i32", Role::NoSocket),
    function(
        "sock_recv",
        "(i32, i32, i32, i32, i32, i32) -> i32",
        Role::NoSocket,
    ),
    function(
        "sock_send",
        "(i32, i32, i32, i32, i32) -> i32",
        Role::NoSocket,
    ),
    function("sock_shutdown", "(i32, i32) -> i32", Role::NoSocket),
];

/// The function of this name, if WASI has it.
#[must_use]
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

impl Function {
    /// What a guest gets, for people.
    #[must_use]
    pub(crate) const fn answer(&self, wasi: Wasi) -> &'static str {
        let real = matches!(wasi, Wasi::Real);
        match self.role {
            Role::Args | Role::ArgsSizes => "no arguments",
            Role::Environ | Role::EnvironSizes => "no variables",
            Role::ClockTime if real => "the host's clock",
            Role::ClockTime => {
                "the time of the fixture or record, else the same at every call (serve: the host's clock)"
            }
            Role::ClockRes => "a clock of 1 µs",
            Role::Random if real => "the host's random bytes",
            Role::Random => "the same bytes at every call (serve: the host's random bytes)",
            Role::Write => "standard output and error go to the log, shortened",
            Role::Read => "standard input is at its end",
            Role::FdStat | Role::FdStatFlags | Role::FileStat | Role::Close => {
                "the three standard streams, no files"
            }
            Role::NoFile | Role::Seek | Role::Tell => "no files",
            Role::NoDirectory => "no directories",
            Role::NoSocket => "no sockets",
            Role::Poll => "a sleep returns at once and counts against the deadline",
            Role::Exit | Role::Raise => "a trap",
            Role::Yield => "nothing to yield to",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_there_once_and_can_be_found() {
        assert!(FUNCTIONS.is_sorted_by(|one, next| one.name < next.name));
        for function in &FUNCTIONS {
            assert_eq!(find(function.name), Some(function));
        }
        assert_eq!(find("fd_writev"), None);
    }
}
