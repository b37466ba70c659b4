#!/usr/bin/perl
# Guards: what explain tells of the last brokerings, and what quotas have refused, is there after an upgrade in place; what was under way goes on in the same story.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $socket = tmp() . '/admin.sock';
my $p = proxy(workers => 1, token_timeout => 60, more => 'max_tokens_per_operator = 3;', outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $base = 'http://127.0.0.1:' . $p->{d}->ready('metrics_port');
sub metrics { return { `curl -sS --noproxy '*' --max-time 20 $base/metrics` =~ /^([^# ]\S*(?:\{[^}]*\})?) (\S+)$/mg } }
sub verb { return $p->verb(@_) }
sub stories { my ($exit, $out, $err) = verb('explain', $_[0], '--json'); return $exit == 0 ? json_value($out)->{stories} : [] }
sub ask { my ($from, $to) = @_; return $p->ask(params => { to => $to, channel => 'grpc_server', _client => client($from) }) }

# One that was refused by B, one that lives, one that waits, one over a quota
my $ask = ask('hd-1', 'hd-no');
$p->told->answer({ error => { code => -32006, message => "we are closed, \"today\"" } });
my $refused = $ask->answer->{error}{data}{session};
my ($a, $b, $live) = $p->pair;
my ($token, $waits) = $p->broker;
my $first = $p->come($token);
$p->wait_parked($waits);
$p->broker for 1 .. 2;
my $over = $p->ask->answer->{error}{data};
is($over->{reason}, 'quota', 'one over a quota');
my @sessions = ($refused, $live, $waits, $over->{session});
my @before = map { stories($_)->[0] } @sessions;
my $was = metrics();
is($was->{'hyper_quota_refused_total{limit="max_tokens_per_operator"}'}, 1, 'which is counted');

for my $n (1, 2) {
	my ($exit, $out, $err) = verb('upgrade');
	is($exit, 0, "upgrade $n") or diag($err);
	my @after = map { stories($_)->[0] } @sessions;
	is_deeply($after[$_], $before[$_], "upgrade $n: the story of " . qw(refused live waiting over-quota)[$_] . ' is the same') for 0 .. $#sessions;
	is(scalar @{ stories('hd-1') }, 6, "upgrade $n: none is told twice");
	is(metrics()->{'hyper_quota_refused_total{limit="max_tokens_per_operator"}'}, 1, "upgrade $n: refusals stay counted");
}

# What lives and waits goes on in its own story
my $second = $p->come($token);
$p->wait_pair($waits);
joined($first, $second, 'who waited is met');
close $_ for $a, $b;
isnt($p->wait_ended($live), undef, 'the pair ends');
my ($story) = @{ stories($live) };
is("$story->{stage} $story->{reason}", 'ended closed', 'and so does its story');
is_deeply([ map { $_->{word} } @{ $story->{steps} } ], [ map { $_->{word} } @{ $before[1]{steps} } ], 'with all its steps');
($story) = @{ stories($waits) };
is($story->{stage}, 'paired', 'as does the one that waited');
is($story->{steps}[-1]{word}, 'paired', 'with the last step');
is($p->{d}->stop, 0, 'it stops cleanly');
hyper_done();
