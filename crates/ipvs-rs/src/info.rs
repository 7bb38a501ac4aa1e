//! What the kernel tells of IPVS itself.

use std::fmt;

/// The answer to `IPVS_CMD_GET_INFO` (`struct ip_vs_getinfo`; the first line of `ipvsadm -L`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Info {
    /// The version of IPVS, 1.2.1 since Linux 2.6.
    pub version: Version,
    /// Buckets of the connection table (module parameter `conn_tab_bits`).
    pub connection_table_size: u32,
}

/// The version of IPVS in the kernel (`IPVS_INFO_ATTR_VERSION`): one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u8,
    /// The second number.
    pub minor: u8,
    /// The third number.
    pub patch: u8,
}

impl Version {
    /// From the kernel's `0x00MMmmpp`.
    pub const fn from_code(code: u32) -> Self {
        let [_, major, minor, patch] = code.to_be_bytes();
        Self {
            major,
            minor,
            patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}
