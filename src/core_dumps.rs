//! No image of the memory on a disk: it holds the client secret, tokens, and the names of customers.

use std::io;

/// Keeps the memory of this process out of core dumps, and from other programs of the same user.
///
/// A limit of zero stops cores that are written to files, and core handlers such as systemd-coredump heed it. The kernel
/// itself does not: where `kernel.core_pattern` names a program, it pipes the memory there whatever the limit is. Only a
/// process that is not dumpable is left alone by both, and neither its memory nor its environment, which may hold the
/// secret too, can then be read by anyone but root and itself. That `/proc/PID` belongs to root from then on takes nothing
/// from `process_*`: what these read is readable for all, or for the process itself.
///
/// # Errors
/// Where the system refuses, as filters of system calls may; what could be done is done nevertheless.
#[cfg(target_os = "linux")]
pub fn switch_off() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    limit_to_zero()?;
    Ok(undumpable?)
}

/// The same, as far as other systems have it: nothing is written to files.
///
/// # Errors
/// Where the system refuses.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn switch_off() -> io::Result<()> {
    limit_to_zero()
}

/// The hard limit goes as well, so that nothing in this process raises the soft one again.
#[cfg(unix)]
fn limit_to_zero() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, nothing)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::switch_off;

    /// A test of the program sees the limit alone: the kernel looks at it first.
    #[test]
    fn neither_files_nor_handlers_are_given_a_dump() {
        switch_off().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // Once more, as under a service manager that has set the limit before.
        switch_off().unwrap();
    }
}
