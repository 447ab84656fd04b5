"""The window itself: places the features' pages and docks, makes menus and toolbar from their actions."""
