//! How many shards each instance should own, and who gets those that one has too many of. Pure.

use crate::storage::leases::InstanceId;

/// Another instance as one that could be given shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heir {
    pub(super) instance: InstanceId,
    /// Those on their way to it included.
    pub(super) owned: usize,
}

/// The most shards that an instance takes, of `shards` among `live` instances: ⌈shards / live⌉.
pub(super) fn fair(shards: u16, live: usize) -> usize {
    usize::from(shards).div_ceil(live.max(1))
}

/// Who gets one each of what `mine` is above the fair share. Nobody, unless someone is below ⌊shards / live⌋: shards that
/// would only change places stay where they are. Where nobody has too many and someone too few, the richest of all gives
/// one: if several did, it would be too many again.
pub(super) fn excess(shards: u16, live: usize, mine: usize, richest: bool, heirs: &mut [Heir]) -> Vec<InstanceId> {
    let enough = usize::from(shards) / live.max(1);
    let excess = mine.saturating_sub(fair(shards, live)).max(usize::from(richest && mine > enough));
    (0..excess).map_while(|_| poorest(heirs, enough)).collect()
}

/// Who gets one each of all `mine`. Nobody, if there is nobody.
pub(super) fn estate(mine: usize, heirs: &mut [Heir]) -> Vec<InstanceId> {
    (0..mine).map_while(|_| poorest(heirs, usize::MAX)).collect()
}

/// The one with the least, below `enough`; it has one more from here on.
fn poorest(heirs: &mut [Heir], enough: usize) -> Option<InstanceId> {
    let heir = heirs.iter_mut().filter(|heir| heir.owned < enough).min_by_key(|heir| heir.owned)?;
    heir.owned += 1;
    Some(heir.instance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heirs(owned: &[usize]) -> Vec<Heir> {
        let heir = |(at, owned): (usize, &usize)| Heir { instance: InstanceId([at as u8; 16]), owned: *owned };
        owned.iter().enumerate().map(heir).collect()
    }

    fn after(owned: &[usize], give: impl Fn(&mut [Heir]) -> Vec<InstanceId>) -> Vec<usize> {
        let mut to = heirs(owned);
        let given = give(&mut to);
        let of = |heir: &Heir| given.iter().filter(|it| **it == heir.instance).count();
        heirs(owned).iter().map(|heir| heir.owned + of(heir)).collect()
    }

    #[test]
    fn a_fair_share_is_rounded_up_so_that_no_shard_is_left() {
        for (shards, live, expected) in [(256, 1, 256), (256, 3, 86), (4, 5, 1), (256, 0, 256), (1, 1, 1)] {
            assert_eq!(fair(shards, live), expected, "{shards} among {live}");
        }
    }

    #[test]
    fn what_is_too_much_goes_to_those_who_have_too_few_and_to_nobody_else() {
        let give = |live, mine| move |heirs: &mut [Heir]| excess(256, live, mine, false, heirs);
        assert_eq!(after(&[0], give(2, 256)), [128]);
        assert_eq!(after(&[56, 0], give(3, 200)), [85, 85]);
        // Between the two roundings nothing moves.
        assert_eq!(after(&[86, 84], give(3, 86)), [86, 84]);
        assert_eq!(after(&[85, 85], give(3, 86)), [85, 85]);
        let richest = |live, mine| move |heirs: &mut [Heir]| excess(256, live, mine, true, heirs);
        assert_eq!(after(&[86, 84], richest(3, 86)), [86, 85]);
        assert_eq!(after(&[86, 85], richest(3, 85)), [86, 85]);
        // Others who count but can't be given anything now.
        assert_eq!(after(&[0], give(3, 256)), [85]);
        assert_eq!(after(&[], give(2, 256)), [0; 0]);
    }

    #[test]
    fn all_of_one_who_goes_is_spread_over_those_who_stay() {
        assert_eq!(after(&[100, 70, 0], |heirs| estate(86, heirs)), [100, 78, 78]);
        assert_eq!(after(&[], |heirs| estate(86, heirs)), [0; 0]);
    }
}
