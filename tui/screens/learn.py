from textual.screen import Screen
class LearnScreen(Screen): pass
