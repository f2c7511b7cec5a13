"""Music as a language: MIDI files as texts of events, their splits, and how they are judged."""
