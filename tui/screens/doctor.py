from textual.screen import Screen
class DoctorScreen(Screen): pass
