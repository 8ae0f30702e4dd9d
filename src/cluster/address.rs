//! Where this instance tells the others to reach it, if nobody wrote it down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Of documentation: nobody has them, but every default route leads there.
const ANYONE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
const ANYONE_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9);

/// `listening` with the address that this host has on its way to the storage (`host`, port), or else to anyone. None:
/// there is no way to anyone.
pub async fn own_address(listening: SocketAddr, storage: Option<(&str, u16)>) -> Option<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return Some(listening);
    }
    let mut ways: Vec<SocketAddr> = Vec::new();
    if let Some(storage) = storage
        && let Ok(found) = tokio::net::lookup_host(storage).await
    {
        ways.extend(found);
    }
    ways.extend([ANYONE_V4, ANYONE_V6]);
    // Who listens on `::` listens on IPv4 too, but not the other way round.
    let mut ways = ways.into_iter().filter(|to| to.is_ipv4() || listening.is_ipv6());
    ways.find_map(source).map(|ip| SocketAddr::new(ip, listening.port()))
}

/// The address that packets to there come from. Nothing is sent.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_instance_is_where_it_listens_or_where_its_storage_sees_it() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let own = own_address(at("10.1.2.3:8022"), None).await;
        assert_eq!(own, Some(at("10.1.2.3:8022")));
        for listening in ["0.0.0.0:8022", "[::]:8022"] {
            let own = own_address(at(listening), Some(("127.0.0.1", 8000))).await;
            assert_eq!(own, Some(at("127.0.0.1:8022")), "{listening}");
        }
    }
}
