"""The distillation core: teachers, their signals and the objectives on them. It knows neither robot nor language."""
