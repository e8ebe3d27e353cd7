//! Disables core dumps, because the memory contains the client secret, tokens, and the names of customers.

use std::io;

/// Protects the memory of this process from core dumps, and from access by other programs of the same user.
///
/// A limit of zero prevents core files, and handlers such as systemd-coredump respect it. But if `kernel.core_pattern`
/// is a program, the kernel passes the memory to it regardless of the limit. To prevent this as well, the process is
/// made not dumpable. Only root and the process itself can then read its memory and its environment, which may contain
/// the secret. `/proc/PID` then belongs to root, but the files for `process_*` stay readable.
///
/// # Errors
/// Returns an error if the system rejects a call, as system call filters may; the other steps are still performed.
#[cfg(target_os = "linux")]
pub fn disable() -> io::Result<()> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    limit_to_zero()?;
    Ok(undumpable?)
}

/// Prevents core files. Other systems support no more than that.
///
/// # Errors
/// Returns an error if the system rejects the call.
#[cfg(all(unix, not(target_os = "linux")))]
pub fn disable() -> io::Result<()> {
    limit_to_zero()
}

/// Sets the limit of core files to zero. The hard limit is also set, so that this process cannot raise the soft limit
/// again.
#[cfg(unix)]
fn limit_to_zero() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    let zero = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, zero)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::disable;

    /// A test with a real core dump would only test the limit, because the kernel checks the limit first.
    #[test]
    fn core_files_and_core_handlers_are_disabled() {
        disable().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
        // A second call, as with a service manager that has already set the limit, succeeds.
        disable().unwrap();
    }
}
