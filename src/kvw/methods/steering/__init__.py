"""Steering: erasure directions, and linear gates that are blind to what must stay."""
