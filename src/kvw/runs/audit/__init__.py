"""``kvw audit``: attacks on any model or edit."""
