//! Kubernetes' quantities (`500m`, `64Mi`) and percentages.
//!
//! Source: the Kubernetes API reference, "Quantity" and "IntOrString".

/// Digits of a quantity: enough for every number in use, and no overflow.
const DIGITS_MAX: usize = 18;

/// Thousandths of a processor, rounded up: `2`, `0.5`, `250m`.
#[must_use]
pub fn cpu_millis(text: &str) -> Option<u32> {
    let millis = scaled(text, &[("m", 1)], 1000)?;
    u32::try_from(millis).ok().filter(|millis| *millis > 0)
}

/// Bytes, rounded up: `67108864`, `64Mi`, `1.5G`.
#[must_use]
pub fn memory_bytes(text: &str) -> Option<u64> {
    let units = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let bytes = scaled(text, &units, 1)?;
    // The kernel counts in signed numbers.
    i64::try_from(bytes).ok()?.try_into().ok().filter(|bytes| *bytes > 0)
}

/// `25%` of `whole`, rounded up or down; `None` if it is not a percentage.
#[must_use]
pub fn percent_of(text: &str, whole: u16, up: bool) -> Option<u16> {
    let percent: u32 = text.strip_suffix('%')?.parse().ok()?;
    let product = u32::from(whole).checked_mul(percent)?;
    u16::try_from(if up { product.div_ceil(100) } else { product / 100 }).ok()
}

/// Exact: a binary fraction would make 2008 of `2.007` times 1000.
fn scaled(text: &str, units: &[(&str, u64)], plain: u64) -> Option<u128> {
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, plain));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = [whole, fraction].concat();
    let plain_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain_digits || digits.len() > DIGITS_MAX {
        return None;
    }
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some((digits.parse::<u128>().ok()? * u128::from(factor)).div_ceil(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, millis) in
            [("2", 2000), ("0.5", 500), ("250m", 250), ("0.0001", 1), ("2.007", 2007)]
        {
            assert_eq!(cpu_millis(text), Some(millis), "{text}");
        }
        for bad in ["", "m", ".", "1.2.3", "-1", "1x", "0", "1e3", "9999999999"] {
            assert_eq!(cpu_millis(bad), None, "{bad}");
        }
        for (text, bytes) in [
            ("64Mi", 64 << 20),
            ("1k", 1000),
            ("128", 128),
            ("1.5Ki", 1536),
            ("1Gi", 1 << 30),
            ("8.3G", 8_300_000_000),
        ] {
            assert_eq!(memory_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "Mi", "-1", "64MB", "0", "inf", "NaN", "1m", "9999999999Ti"] {
            assert_eq!(memory_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn percentages_round_as_kubernetes_rounds_them() {
        assert_eq!(percent_of("25%", 3, true), Some(1));
        assert_eq!(percent_of("25%", 3, false), Some(0));
        assert_eq!(percent_of("100%", 3, false), Some(3));
        assert_eq!(percent_of("25", 3, true), None);
        assert_eq!(percent_of("-1%", 3, true), None);
    }
}
