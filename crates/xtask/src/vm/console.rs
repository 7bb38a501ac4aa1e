//! What the guest's kernel wrote on its console: whether it is still in order.

/// The kernel cannot be trusted any more, whatever the program in the guest says.
const FATAL: &[&str] = &[
    "Kernel panic",
    "BUG:",
    "Oops",
    "soft lockup",
    "hard LOCKUP",
    "general protection fault",
    "kernel BUG at",
    "Out of memory: Killed",
];

/// Worth a look, but the kernel goes on.
const WARNING: &[&str] = &[
    "WARNING:",
    "detected stall",
    "blocked for more than",
    "unregister_netdevice: waiting",
];

/// The lines that matter of a console.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Console {
    pub(crate) fatal: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) text: String,
    /// The last lines, for when there is nothing else to go by.
    pub(crate) last: Vec<String>,
}

impl Console {
    pub(crate) fn read(text: &str) -> Self {
        let having = |words: &[&str]| -> Vec<String> {
            text.lines()
                .filter(|line| words.iter().any(|word| line.contains(word)))
                .map(|line| line.trim_end().to_owned())
                .collect()
        };
        let lines: Vec<&str> = text.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(25)..)
            .unwrap_or_default();
        Self {
            fatal: having(FATAL),
            warnings: having(WARNING),
            text: text.to_owned(),
            last: last.iter().map(|line| line.trim_end().to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_fatal_and_a_warning_is_not() {
        let console = Console::read(
            "[    2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\r\n[    3.1] Kernel panic - not syncing: sysrq\r\n",
        );
        assert_eq!(
            console.fatal,
            ["[    3.1] Kernel panic - not syncing: sysrq"]
        );
        assert_eq!(
            console.warnings,
            ["[    2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1"]
        );
        assert_eq!(console.last.len(), 2);
    }

    #[test]
    fn a_quiet_console_is_in_order() {
        let console =
            Console::read("[    0.1] ..MP-BIOS bug: 8254 timer not connected to IO-APIC\n");
        assert!(console.fatal.is_empty());
        assert!(console.warnings.is_empty());
    }
}
