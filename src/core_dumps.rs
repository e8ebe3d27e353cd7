//! Disables core dumps, because the memory contains the client secret, tokens, and the names of customers.

use std::io;

/// Excludes the memory of this process from core dumps, and from access by other programs of the same user.
///
/// A limit of zero prevents core files, and core handlers such as systemd-coredump respect it. The kernel itself does
/// not: if `kernel.core_pattern` is a program, it receives the memory whatever the limit is. Only a process that is not
/// dumpable is excluded from both. Its memory and its environment, which may also contain the secret, can then be read
/// by root and itself only. `/proc/PID` then belongs to root, which does not affect `process_*`: those files are
/// readable for everyone, or for the process itself.
///
/// # Errors
/// Returns an error if the system rejects a call, as system call filters may; the other steps are still performed.
#[cfg(target_os = "linux")]
pub fn switch_off() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    limit_to_zero()?;
    Ok(undumpable?)
}

/// The same, as far as other systems support it: no core files are written.
///
/// # Errors
/// Returns an error if the system rejects the call.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn switch_off() -> io::Result<()> {
    limit_to_zero()
}

/// Also lowers the hard limit, so that nothing in this process can raise the soft one.
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
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::switch_off;

    /// A test of the program would only observe the limit, which the kernel checks first.
    #[test]
    fn core_files_and_core_handlers_are_disabled() {
        switch_off().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // A second call, as under a service manager that has already set the limit.
        switch_off().unwrap();
    }
}
