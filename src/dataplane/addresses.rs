//! The dummy device and its addresses over route netlink.
