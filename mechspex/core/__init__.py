"""The ground floor: units, masks, the seam between models and mathematics; numpy only."""
