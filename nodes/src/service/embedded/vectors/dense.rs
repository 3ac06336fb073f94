//! Dense vectors: checked, scaled to length one, stored as little-endian `f32`, compared by cosine.

use super::bm25::{Scored, shown};

const LANES: usize = 8;

/// The vector scaled to length one, so that a dot product is the cosine; `None` where it has no direction: a component
/// is not finite, or all are zero.
pub(in crate::service) fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = vector
        .iter()
        .map(|component| f64::from(*component).powi(2))
        .sum::<f64>()
        .sqrt();
    let usable = length.is_finite() && length > 0.0;
    usable.then(|| {
        vector
            .iter()
            .map(|component| shown(f64::from(*component) / length))
            .collect()
    })
}

/// The bytes that are stored.
pub(super) fn pack(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

/// The vector of stored bytes.
pub(super) fn unpack(bytes: &[u8]) -> Vec<f32> {
    let (components, _) = bytes.as_chunks::<4>();
    components.iter().copied().map(f32::from_le_bytes).collect()
}

/// The cosine of a unit vector with each stored one.
pub(super) fn score(query: &[f32], stored: &[(u32, Vec<u8>)]) -> Vec<Scored> {
    let compared = |(chunk, bytes): &(u32, Vec<u8>)| {
        let cosine = dot(query, bytes);
        Scored {
            chunk: *chunk,
            score: cosine,
            coverage: 0.0,
            similarity: Some(cosine),
        }
    };
    stored.iter().map(compared).collect()
}

/// Sums in eight lanes, which the compiler makes one vector instruction each; one sum would forbid it.
fn dot(query: &[f32], stored: &[u8]) -> f32 {
    let (lanes, rest) = query.as_chunks::<LANES>();
    let (stored, _) = stored.as_chunks::<4>();
    let (stored_lanes, stored_rest) = stored.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (query, stored) in lanes.iter().zip(stored_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(query).zip(stored) {
            *sum += a * f32::from_le_bytes(*b);
        }
    }
    let rest = rest.iter().zip(stored_rest).map(|(a, b)| a * f32::from_le_bytes(*b));
    sums.into_iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_as_near_to_itself_as_can_be_whatever_its_length() {
        let (short, long) = (unit(&[0.3, -0.4]).unwrap(), unit(&[30.0, -40.0]).unwrap());
        let scored = score(&short, &[(7, pack(&long))]);
        assert!((scored[0].score - 1.0).abs() < 1e-6, "{scored:?}");
        assert_eq!(scored[0].chunk, 7);
    }

    #[test]
    fn every_component_counts_whatever_their_number() {
        for length in 1..=19_u16 {
            let query = vec![1.0_f32; usize::from(length)];
            let stored: Vec<f32> = (1..=length).map(f32::from).collect();
            let expected = f32::from(length * (length + 1) / 2);
            assert!(
                (dot(&query, &pack(&stored)) - expected).abs() < 1e-3,
                "{length} components"
            );
        }
    }

    #[test]
    fn a_vector_without_direction_is_refused() {
        for vector in [&[0.0, 0.0][..], &[f32::NAN, 1.0], &[f32::INFINITY, 1.0], &[]] {
            assert_eq!(unit(vector), None, "{vector:?}");
        }
    }
}
