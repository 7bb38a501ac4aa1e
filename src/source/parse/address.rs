//! Addresses, ports and protocols as Kubernetes writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipvs::Protocol;

use super::field::{Field, Report, Reported, show, show_text};

/// The address in a field; `None` if the field is absent. An address that can never be a VIP or an endpoint is reported as well.
pub(super) fn address(
    field: &Field<'_>,
    report: &mut Report,
    consequence: &str,
) -> Result<Option<IpAddr>, Reported> {
    let Some(text) = field.text(report, consequence)? else {
        return Ok(None);
    };
    let Some(address) = parse(text) else {
        let problem = format!("{} is not an IP address", show_text(text));
        return Err(report.finding(field, problem, consequence));
    };
    match unusable(address) {
        None => Ok(Some(address)),
        Some(what) => {
            let problem = format!("{address} is {what}");
            Err(report.finding(field, problem, consequence))
        }
    }
}

/// A port number that must be there.
pub(super) fn port(
    field: &Field<'_>,
    report: &mut Report,
    consequence: &str,
) -> Result<NonZeroU16, Reported> {
    let Some(value) = field.value() else {
        return Err(report.finding(field, "is missing", consequence));
    };
    value.as_u64().and_then(number_of_port).ok_or_else(|| {
        let problem = if value.is_string() {
            format!("{} is text, not a number", show(value))
        } else {
            format!("{} is not a port (1 to 65535)", show(value))
        };
        report.finding(field, problem, consequence)
    })
}

fn number_of_port(number: u64) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

/// A protocol; TCP if absent.
pub(super) fn protocol(
    field: &Field<'_>,
    report: &mut Report,
    consequence: &str,
) -> Result<Protocol, Reported> {
    match field.text(report, consequence)? {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => {
            let problem = format!("{} is not TCP, UDP or SCTP", show_text(other));
            Err(report.finding(field, problem, consequence))
        }
    }
}

/// A port's name, as the API server admits it; empty if absent.
pub(super) fn port_name<'a>(
    field: &Field<'a>,
    report: &mut Report,
    consequence: &str,
) -> Result<&'a str, Reported> {
    let name = field.text(report, consequence)?.unwrap_or_default();
    let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() <= 63 && name.chars().all(usual) {
        Ok(name)
    } else {
        let problem = format!(
            "{} is not a port's name (lower-case letters, digits and -, at most 63)",
            show_text(name)
        );
        Err(report.finding(field, problem, consequence))
    }
}

/// Reads an address as kube-proxy does (`ParseIPSloppy` of k8s.io/utils): an IPv4 octet may have leading zeros and stays decimal;
/// objects that were stored before API validation became strict in Kubernetes 1.36 may have them. No IPv6 zones.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    let Some((head, tail)) = text.rsplit_once(':') else {
        return parse_ipv4(text).map(IpAddr::V4);
    };
    // IPv6 with an IPv4 address at its end.
    let tail = parse_ipv4(tail)?;
    format!("{head}:{tail}").parse().ok().map(IpAddr::V6)
}

fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() {
            0
        } else {
            digits.parse().ok()?
        };
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// Why nothing can be served at, or sent to, an address; `None` if it can. The API server refuses these in new objects.
fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => unusable_ipv4(address),
        IpAddr::V6(address) => unusable_ipv6(address),
    }
}

fn unusable_ipv4(address: Ipv4Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if address.is_broadcast() {
        Some("the broadcast address")
    } else {
        None
    }
}

fn unusable_ipv6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.to_ipv4_mapped().is_some() {
        Some("an IPv4 address mapped to IPv6")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_as_kube_proxy_does() {
        for (text, expected) in [
            ("10.96.0.1", Some("10.96.0.1")),
            ("010.96.000.1", Some("10.96.0.1")),
            ("010.096.000.010", Some("10.96.0.10")),
            ("00000192.0.2.1", Some("192.0.2.1")),
            ("256.0.0.1", None),
            ("10.96.0", None),
            ("10.96.0.1.2", None),
            ("10.96..1", None),
            ("+10.96.0.1", None),
            (" 10.96.0.1", None),
            ("10.96.0.1/32", None),
            ("0x0a.0.0.1", None),
            ("fd00:96::1", Some("fd00:96::1")),
            ("FD00:0096::0001", Some("fd00:96::1")),
            ("64:ff9b::192.0.2.1", Some("64:ff9b::c000:201")),
            ("64:ff9b::192.000.002.001", Some("64:ff9b::c000:201")),
            ("fe80::1%eth0", None),
            ("[fd00::1]", None),
            ("None", None),
            ("", None),
        ] {
            let expected: Option<IpAddr> = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn knows_addresses_that_nothing_can_be_served_at() {
        for (text, expected) in [
            ("0.0.0.0", Some("the unspecified address")),
            ("127.0.0.53", Some("a loopback address")),
            ("224.0.0.1", Some("a multicast address")),
            ("169.254.169.254", Some("a link-local address")),
            ("255.255.255.255", Some("the broadcast address")),
            ("192.0.2.1", None),
            ("10.96.0.0", None),
            ("::", Some("the unspecified address")),
            ("::1", Some("a loopback address")),
            ("ff02::1", Some("a multicast address")),
            ("fe80::1", Some("a link-local address")),
            ("::ffff:192.0.2.1", Some("an IPv4 address mapped to IPv6")),
            ("2001:db8::1", None),
            ("fd00:96::1", None),
        ] {
            assert_eq!(unusable(text.parse().unwrap()), expected, "{text}");
        }
    }
}
