//! Who gets in, and whose places are free again.

use super::*;

#[test]
fn one_address_leaves_room_for_others_to_say_who_they_are() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::default().with(Limit::UnauthenticatedWebSockets, 8);
    let admission = Admission::new(limits, Reached::default());
    let enter = |address: &str| {
        let load = Load::of(admission.clone(), address.parse().ok());
        load.stranger().map_err(|problem| {
            let is_quarter = problem.detail().starts_with("2 WebSockets of this address");
            (problem.into_response().status().as_u16(), is_quarter)
        })
    };
    let enters = |address: &str| enter(address).map_err(|refused| format!("{refused:?}"));
    let first = [enters("192.0.2.1")?, enters("192.0.2.1")?];
    // Another address may enter, which is what the status says.
    assert_eq!(enter("192.0.2.1").err(), Some((429, true)));
    let mut others = Vec::new();
    for number in 2..8 {
        others.push(enters(&format!("192.0.2.{number}"))?);
    }
    assert_eq!(enter("192.0.2.9").err(), Some((503, false)));
    assert_eq!(enter("192.0.2.1").err(), Some((429, true)));
    drop(first);
    others.push(enters("192.0.2.9")?);
    // On a Unix socket all count together.
    others.push(enters("no address")?);
    assert_eq!(enter("no address").err(), Some((503, false)));
    drop(others);
    assert!(admission.0.strangers.are_free() && admission.0.strangers_by_address.are_free());
    Ok(())
}

#[test]
fn an_address_is_a_network_of_ipv6_and_forgotten_with_its_last_connection()
-> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits::default().with(Limit::ConnectionsPerAddress, 2);
    let admission = Admission::new(limits, Reached::default());
    let seat = |address: &str| address.parse().map(|address| admission.seat(Some(address)));
    let (one, two) = (seat("2001:db8::1")?, seat("2001:db8::2")?);
    let refused = |seat: &Option<Seat>| seat.as_ref().map(|seat| seat.refused);
    assert_eq!((refused(&one), refused(&two)), (Some(None), Some(None)));
    // The third is answered, the fourth is not.
    let three = seat("2001:db8::3")?;
    assert_eq!(refused(&three), Some(Some(Limit::ConnectionsPerAddress)));
    assert!(seat("2001:db8::4")?.is_none());
    assert_eq!(refused(&seat("2001:db8:1::")?), Some(None));
    assert_eq!(refused(&seat("::ffff:127.0.0.1")?), refused(&seat("127.0.0.1")?));
    drop((one, two, three));
    assert!(admission.0.connections.are_free() && admission.0.by_address.are_free());
    Ok(())
}
