//! A kernel as text, a line each:
//!
//! - virtual and real servers as `ipvsadm -Sn` prints them: `-A -t 192.0.2.10:80 -s rr -p 10800`,
//!   `-a -t 192.0.2.10:80 -r 198.51.100.1:8080 -m -w 1 -x 10 -y 5`, `-A -f 7 -6 -s rr`, `-A --sctp-service … -b flag-1,flag-2 -o`;
//! - `device up` or `device down`: our dummy device; without such a line there is none;
//! - `vip ADDRESS`: an address on it as weir adds it; `vip ADDRESS other`: with another prefix length, scope or life time;
//! - `recorded -t 192.0.2.10:80`: a key that weir wrote down as its own;
//! - `#` and what follows it is a comment.

use ipvs::{
    Connections, Family, Flags, ForwardMethod, Netmask, Persistence, Protocol, RealServerConfig,
    Scheduler, Thresholds, Tunnel, VirtualServerConfig, VirtualServerKey, Weight,
};
use weir::dataplane::{Device, Observed, ObservedRealServer, ObservedVirtualServer, VipBinding};
use weir::ownership::Ownership;

use super::{Result, address, real_server, virtual_server};

/// Reads the text.
pub(crate) fn kernel(text: &str) -> Result<(Observed, Ownership)> {
    let mut observed = Observed::default();
    let mut ownership = Ownership::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        take_line(&words, &mut observed, &mut ownership)
            .map_err(|error| format!("{line:?}: {error}"))?;
    }
    Ok((observed, ownership))
}

fn take_line(words: &[&str], observed: &mut Observed, ownership: &mut Ownership) -> Result<()> {
    match words {
        [] => {}
        ["device", "up"] => observed.device = Device::Up,
        ["device", "down"] => observed.device = Device::Down,
        ["vip", vip] => {
            observed.vips.insert(address(vip)?, VipBinding::AsWanted);
        }
        ["vip", vip, "other"] => {
            observed.vips.insert(address(vip)?, VipBinding::Other);
        }
        ["recorded", key @ ..] => {
            ownership.recorded.insert(Options::read(key)?.key()?);
        }
        ["-A", options @ ..] => {
            let options = Options::read(options)?;
            let server = ObservedVirtualServer {
                config: options.virtual_server()?,
                real_servers: std::collections::BTreeMap::new(),
            };
            observed.virtual_servers.insert(options.key()?, server);
        }
        ["-a", options @ ..] => {
            let options = Options::read(options)?;
            let server = ObservedRealServer {
                config: options.real_server()?,
                connections: Some(Connections::default()),
            };
            observed
                .virtual_servers
                .get_mut(&options.key()?)
                .ok_or("its virtual server is not there")?
                .real_servers
                .insert(real_server(options.value("-r")?)?, server);
        }
        _ => return Err("is no line of a kernel".to_owned()),
    }
    Ok(())
}

/// The options of a line, those without a value with an empty one.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    const KEYS: [(&'static str, Protocol); 3] = [
        ("-t", Protocol::Tcp),
        ("-u", Protocol::Udp),
        ("--sctp-service", Protocol::Sctp),
    ];
    const WITH_VALUE: [&'static str; 13] = [
        "-t",
        "-u",
        "--sctp-service",
        "-f",
        "-s",
        "-p",
        "-M",
        "-b",
        "-r",
        "-w",
        "-x",
        "-y",
        "--pe",
    ];
    const ALONE: [&'static str; 5] = ["-6", "-o", "-m", "-g", "-i"];

    fn read(words: &[&'a str]) -> Result<Self> {
        let mut options = Vec::new();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let value = if Self::WITH_VALUE.contains(&word) {
                words.next().ok_or(format!("{word} lacks its value"))?
            } else if Self::ALONE.contains(&word) {
                ""
            } else {
                return Err(format!("{word} is no option"));
            };
            options.push((word, value));
        }
        Ok(Self(options))
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(option, _)| *option == name);
        found.map(|(_, value)| *value)
    }

    fn value(&self, name: &str) -> Result<&'a str> {
        self.find(name).ok_or(format!("{name} is missing"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>>
    where
        T::Err: std::fmt::Display,
    {
        self.find(name)
            .map(|text| text.parse().map_err(|error| format!("{name}: {error}")))
            .transpose()
    }

    fn key(&self) -> Result<VirtualServerKey> {
        for (option, protocol) in Self::KEYS {
            if let Some(text) = self.find(option) {
                return virtual_server(protocol, text);
            }
        }
        Ok(VirtualServerKey::Mark {
            mark: self.number("-f")?.ok_or("it names no virtual server")?,
            family: if self.find("-6").is_some() {
                Family::Ipv6
            } else {
                Family::Ipv4
            },
        })
    }

    fn virtual_server(&self) -> Result<VirtualServerConfig> {
        let mut flags = Flags {
            one_packet: self.find("-o").is_some(),
            ..Flags::default()
        };
        for flag in self.find("-b").into_iter().flat_map(|list| list.split(',')) {
            match flag {
                "flag-1" => flags.scheduler_1 = true,
                "flag-2" => flags.scheduler_2 = true,
                "flag-3" => flags.scheduler_3 = true,
                _ => return Err(format!("{flag} is no flag")),
            }
        }
        let scheduler: Scheduler = self
            .value("-s")?
            .parse()
            .map_err(|error| format!("{error}"))?;
        Ok(VirtualServerConfig {
            flags,
            persistence: self.persistence()?,
            persistence_engine: self.find("--pe").map(str::to_owned),
            ..VirtualServerConfig::new(scheduler)
        })
    }

    fn persistence(&self) -> Result<Option<Persistence>> {
        let Some(timeout) = self.number("-p")? else {
            return Ok(None);
        };
        let family = self.key()?.family();
        let netmask = match (self.find("-M"), family) {
            (None, _) => Netmask::host(family),
            (Some(mask), Family::Ipv4) => {
                Netmask::V4(mask.parse().map_err(|error| format!("-M: {error}"))?)
            }
            (Some(prefix), Family::Ipv6) => {
                Netmask::V6(prefix.parse().map_err(|error| format!("-M: {error}"))?)
            }
        };
        Ok(Some(Persistence { timeout, netmask }))
    }

    fn real_server(&self) -> Result<RealServerConfig> {
        let forward = if self.find("-m").is_some() {
            ForwardMethod::Masquerade
        } else if self.find("-g").is_some() {
            ForwardMethod::DirectRoute
        } else if self.find("-i").is_some() {
            ForwardMethod::Tunnel(Tunnel::Ipip)
        } else {
            return Err("it lacks -m, -g or -i".to_owned());
        };
        let thresholds = match (self.number("-x")?, self.number("-y")?) {
            (None, None) => None,
            (upper, lower) => Some(Thresholds {
                upper: upper.unwrap_or(0),
                lower: lower.unwrap_or(0),
            }),
        };
        Ok(RealServerConfig {
            forward,
            weight: Weight(self.number("-w")?.unwrap_or(1)),
            thresholds,
        })
    }
}
